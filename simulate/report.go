package simulate

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"slicewire/overlay"
	"slicewire/show"
)

// A Report is what a simulation found. Times are milliseconds since the
// scenario's beginning.
type Report struct {
	Events  []Event  `json:"events"`
	Moves   []Move   `json:"moves"`
	Outages []Outage `json:"outages"`
	News    []News   `json:"news,omitempty"`
}

// A Event is what the scenario has happen.
type Event struct {
	AtMs float64 `json:"atMs"`
	What string  `json:"what"`
}

// A Move is prefixes of a slice that a node reaches by another peer than
// before.
type Move struct {
	AtMs     float64        `json:"atMs"`
	Slice    string         `json:"slice"`
	Node     string         `json:"node"`
	From     string         `json:"from"` // empty: no peer
	To       string         `json:"to"`
	Prefixes []netip.Prefix `json:"prefixes"`
}

// A Outage is nodes of a slice that were there and could not talk.
type Outage struct {
	FromMs  float64  `json:"fromMs"`
	ToMs    float64  `json:"toMs"`
	Slice   string   `json:"slice"`
	Pairs   []string `json:"pairs"`   // "site/node - site/node"
	Lasting bool     `json:"lasting"` // still so at the end
	Gone    bool     `json:"gone"`    // until one of the two was not there any more
}

// A News is when others knew what a node told when it came.
type News struct {
	AtMs    float64 `json:"atMs"`
	Of      string  `json:"of"`
	FirstMs float64 `json:"firstMs"` // after that
	LastMs  float64 `json:"lastMs"`
	Last    string  `json:"last"`    // the node that knew it last
	Missing int     `json:"missing"` // nodes that did not know it at the end
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (r *Report) event(at time.Duration, verb string, whom []string, x *eventSpec) {
	what := verb + " " + strings.Join(whom, " - ")
	switch {
	case x.OneWay:
		what = verb + " " + strings.Join(whom, " > ")
	case x.For > 0:
		what += " for " + time.Duration(x.For).String()
	}
	r.Events = append(r.Events, Event{ms(at), what})
}

func (r *Report) moved(at time.Duration, e *end, old map[netip.Prefix]overlay.Tag) {
	if at < 0 {
		return
	}
	name := func(t overlay.Tag) string {
		if p := e.peers[t]; p != nil {
			return p.node.id.String()
		}
		return ""
	}
	first := len(r.Moves)
	for _, p := range changedWays(old, e.ways) {
		m := Move{AtMs: ms(at), Slice: e.slice.Name, Node: e.node.id.String(), From: name(old[p]), To: name(e.ways[p])}
		i := slices.IndexFunc(r.Moves[first:], func(x Move) bool { return x.From == m.From && x.To == m.To })
		if i < 0 {
			i = len(r.Moves) - first
			r.Moves = append(r.Moves, m)
		}
		r.Moves[first+i].Prefixes = append(r.Moves[first+i].Prefixes, p)
	}
}

func (r *Report) outage(from, to time.Duration, pair [2]*end, lasting, gone bool) {
	names := pair[0].node.id.String() + " - " + pair[1].node.id.String()
	o := Outage{FromMs: ms(from), ToMs: ms(to), Slice: pair[0].slice.Name, Lasting: lasting, Gone: gone}
	for i := range r.Outages {
		x := &r.Outages[i]
		if x.FromMs == o.FromMs && x.ToMs == o.ToMs && x.Slice == o.Slice && x.Lasting == lasting && x.Gone == gone {
			x.Pairs = append(x.Pairs, names)
			return
		}
	}
	o.Pairs = []string{names}
	r.Outages = append(r.Outages, o)
}

// sort makes the order the same for the same scenario and seed.
func (r *Report) sort() {
	slices.SortStableFunc(r.Moves, func(a, b Move) int {
		return cmp.Or(cmp.Compare(a.AtMs, b.AtMs), cmp.Compare(a.Slice, b.Slice), cmp.Compare(a.Node, b.Node), cmp.Compare(a.To, b.To), cmp.Compare(a.From, b.From))
	})
	for i := range r.Outages {
		slices.Sort(r.Outages[i].Pairs)
	}
	slices.SortFunc(r.Outages, func(a, b Outage) int {
		return cmp.Or(cmp.Compare(a.FromMs, b.FromMs), cmp.Compare(a.ToMs, b.ToMs), cmp.Compare(a.Slice, b.Slice), slices.Compare(a.Pairs, b.Pairs))
	})
}

// Print writes the report as tables: first everything in the order in which it
// happened.
func (r *Report) Print(w io.Writer) error {
	type line struct {
		at    float64
		order int // of what is at once
		text  [3]string
	}
	var lines []line
	for _, e := range r.Events {
		lines = append(lines, line{e.AtMs, 0, [3]string{"event", "", e.What}})
	}
	for _, m := range r.Moves {
		text := fmt.Sprintf("%s: %s by %s, before %s", m.Node, prefixesText(m.Prefixes), show.Dash(m.To), show.Dash(m.From))
		lines = append(lines, line{m.AtMs, 1, [3]string{"path", m.Slice, text}})
	}
	for _, o := range r.Outages {
		if !o.Lasting {
			text := fmt.Sprintf("after %s again: %s", duration(o.ToMs-o.FromMs), pairsText(o.Pairs))
			if o.Gone {
				text = fmt.Sprintf("not for %s, until one is gone: %s", duration(o.ToMs-o.FromMs), pairsText(o.Pairs))
			}
			lines = append(lines, line{o.ToMs, 2, [3]string{"reach", o.Slice, text}})
		}
	}
	for _, n := range r.News {
		lines = append(lines, line{n.AtMs + n.LastMs, 3, [3]string{"news", "", newsText(n)}})
	}
	slices.SortStableFunc(lines, func(a, b line) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.order, b.order)) })
	t := show.NewTable(w)
	t.Row("TIME", "KIND", "SLICE", "WHAT")
	for _, l := range lines {
		t.Row(fmt.Sprintf("%.3fs", l.at/1000), l.text[0], show.Dash(l.text[1]), show.Clean(l.text[2]))
	}
	t.Flush()
	t.Row("UNREACHABLE", "FROM", "TO", "SLICE", "PAIRS")
	for _, o := range r.Outages {
		for i, p := range o.Pairs {
			long, from, to, slice := "", "", "", ""
			if i == 0 {
				long, from, to, slice = duration(o.ToMs-o.FromMs), fmt.Sprintf("%.3fs", o.FromMs/1000), fmt.Sprintf("%.3fs", o.ToMs/1000), o.Slice
				if o.Lasting {
					to = "the end"
				}
			}
			t.Row(long, from, to, slice, show.Clean(p))
		}
	}
	t.Flush()
	if len(r.Outages) == 0 && t.Err == nil {
		_, t.Err = fmt.Fprintln(w, "\nEverybody who was there could talk to everybody, all the time.")
	}
	return t.Err
}

func duration(ms float64) string {
	return time.Duration(ms * float64(time.Millisecond)).Round(time.Millisecond).String()
}

func prefixesText(p []netip.Prefix) string {
	if len(p) <= 2 {
		return show.List(p)
	}
	return fmt.Sprintf("%v and %d more", p[0], len(p)-1)
}

func pairsText(p []string) string {
	if len(p) <= 2 {
		return strings.Join(p, ", ")
	}
	return fmt.Sprintf("%s and %d more pairs", p[0], len(p)-1)
}

func newsText(n News) string {
	text := fmt.Sprintf("what %s told at %.3fs: first known after %s, everywhere after %s (%s)",
		n.Of, n.AtMs/1000, duration(n.FirstMs), duration(n.LastMs), n.Last)
	if n.Missing > 0 {
		text = fmt.Sprintf("what %s told at %.3fs: %d nodes do not know it at the end", n.Of, n.AtMs/1000, n.Missing)
	}
	return text
}
