package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A stressReport is everything that a stress run found, as it is written.
type stressReport struct {
	Started  time.Time       `json:"started"`
	Machine  machine         `json:"machine"`
	Overload *overloadReport `json:"overload,omitempty"`
	MTU      *mtuReport      `json:"mtu,omitempty"`
}

// goals are those of all scenarios.
func (r *stressReport) goals() []goal {
	var all []goal
	if r.Overload != nil {
		all = append(all, r.Overload.Goals...)
	}
	if r.MTU != nil {
		all = append(all, r.MTU.Goals...)
	}
	return all
}

// finish prints and writes the report and says which goals are missed.
func (r *stressReport) finish(o options, say func(string, ...any)) error {
	if r.Overload == nil && r.MTU == nil {
		return nil // what went wrong is told already
	}
	text := r.markdown()
	fmt.Printf("\n%s\n", text)
	if o.results != "" {
		if err := r.write(o.results, text, say); err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
	}
	var missed []error
	for _, b := range r.goals() {
		if !b.Met {
			missed = append(missed, fmt.Errorf("%w: %s: %s is %s %s, not at most %s", errGoalsMissed, b.Scenario, b.What, number(b.Value), b.Unit, number(b.Limit)))
		}
	}
	return errors.Join(missed...)
}

func (r *stressReport) write(dir, text string, say func(string, ...any)) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	document, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	base := filepath.Join(dir, r.Started.Format("2006-01-02T1504")+"-stress")
	for _, f := range []struct {
		name string
		data []byte
	}{{base + ".json", append(document, '\n')}, {base + ".md", []byte(text)}} {
		if err := os.WriteFile(f.name, f.data, 0o644); err != nil {
			return err
		}
		say("written: %s", f.name)
	}
	return nil
}

// markdown returns the report as the terminal and the file show it.
func (r *stressReport) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# slicewire under stress, %s\n\n%s.\n", r.Started.Format("2006-01-02"), r.Machine)
	if r.Overload != nil {
		r.Overload.markdown(&b)
	}
	if r.MTU != nil {
		r.MTU.markdown(&b)
	}
	b.WriteString("\n## Goals\n\n| scenario | what | is | at most | met |\n|---|---|---|---|---|\n")
	for _, x := range r.goals() {
		met := "yes"
		if !x.Met {
			met = "**no**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s %s | %s %s | %s |\n", x.Scenario, x.What, number(x.Value), x.Unit, number(x.Limit), x.Unit, met)
	}
	return b.String()
}

func (r *overloadReport) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "\n## Overload of one slice of %d\n\n"+
		"Slice 1 carries %s kpps of %d bytes alone with at most %d %% loss. %d senders at nice %d were to offer %s kpps and offered\n"+
		"%s (%s times): %d datagrams, of which %d arrived, %s kpps.\n",
		r.Slices, number(r.CarriesKpps), r.Bytes, lossMaxPercent, r.Senders, r.Nice, number(r.WantedKpps),
		number(r.SentKpps), number(r.SentKpps/max(r.CarriesKpps, 1e-9)), r.Sent, r.Delivered, number(r.DeliveredKpps))
	fmt.Fprintf(b, "Beside the dead end the same senders sent %s kpps over a veth pair that leads nowhere: what differs from idle there is\n"+
		"the CPU that senders take, what differs further under overload is slicewire and the receivers. Senders and receivers stand back\n"+
		"(nice %d) because in a network they are not on the machine of the other slices' programs.\n\n", number(r.DeadEndKpps), r.Nice)
	b.WriteString("| echo RTT of slices 2 to 5, us | n | p50 | p99 | longest | p99 to idle | worst slice's p99 | daemons' CPUs | others' CPUs |\n" +
		"|---|---|---|---|---|---|---|---|---|\n")
	for _, p := range r.Phases {
		slice, worst := p.worst()
		fmt.Fprintf(b, "| %s | %d | %s | %s | %s | %s | %s (slice %d) | %s | %s |\n", p.Name, p.All.N, number(p.All.P50), number(p.All.P99), number(p.All.Max),
			number(p.All.P99/max(r.Phases[0].All.P99, 1)), number(worst.P99), slice, number(p.Daemons), number(p.Foreign))
	}
	b.WriteString("\n| daemon | peak RSS, MiB |\n|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(r.PeakMiB)) {
		fmt.Fprintf(b, "| %s | %s |\n", name, number(r.PeakMiB[name]))
	}
}

func (r *mtuReport) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "\n## TCP over ways that are narrower than their ends\n\n"+
		"Both sites' links have MTU %d unless the row tells theirs too, the link between the two routers the MTU of the row. The routers send no ICMP; the last column\n"+
		"counts the packets that were too long for that link and forbade to be cut (gossip's among them).\n\n| MTU | Mbit/s | longest stall, s | too long | |\n|---|---|---|---|---|\n", jumboMTU)
	for _, g := range r.Rungs {
		line, _, _ := strings.Cut(g.Error, "\n")
		fmt.Fprintf(b, "| %s | %s | %s | %d | %s |\n", g.Way, number(g.Mbps), number(g.Stall), g.Unheard, line)
	}
}
