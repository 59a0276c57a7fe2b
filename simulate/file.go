package simulate

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"slicewire/bench/lab"
	"slicewire/overlay"
)

// A scenario is what `slicewire simulate` reads: who is there, how they are
// joined, and what happens.
type scenario struct {
	Mesh      string      `json:"mesh"`      // of the manifests; default: as they say
	Manifests []string    `json:"manifests"` // files or folders, from the scenario's folder
	Seed      uint64      `json:"seed"`
	Duration  span        `json:"duration"` // default: ten seconds after the last event
	Link      linkSpec    `json:"link"`     // between sites; default 20ms
	Sites     []siteSpec  `json:"sites"`
	Links     []linkSpec  `json:"links"` // exceptions; a later one wins
	Events    []eventSpec `json:"events"`
}

type siteSpec struct {
	Name  string     `json:"name"`
	Nodes []nodeSpec `json:"nodes"`
}

type nodeSpec struct {
	Name    string `json:"name"`
	Gateway bool   `json:"gateway"`
}

// A linkSpec is a link both ways. Ends are sites or nodes ("site/node").
type linkSpec struct {
	Between   []string `json:"between"`
	Delay     span     `json:"delay"`
	Jitter    span     `json:"jitter"`
	Loss      float64  `json:"loss"` // share, 0 to 1; the following too
	Duplicate float64  `json:"duplicate"`
	Reorder   float64  `json:"reorder"`
}

func (l linkSpec) link() lab.Link {
	return lab.Link{
		Delay: time.Duration(l.Delay), Jitter: time.Duration(l.Jitter),
		Loss: l.Loss, Duplicate: l.Duplicate, Reorder: l.Reorder,
	}
}

// An eventSpec says one thing that happens at a time.
type eventSpec struct {
	At      span     `json:"at"`
	Kill    string   `json:"kill"`    // a node loses its power
	Restart string   `json:"restart"` // a killed node comes back with its state folder
	Join    string   `json:"join"`    // a node comes that was not there before
	Drain   string   `json:"drain"`   // a gateway hands over what it carries for others
	Undrain string   `json:"undrain"`
	Stall   string   `json:"stall"` // a node does not get to run
	For     span     `json:"for"`   // so long
	Cut     []string `json:"cut"`   // nothing passes between the two, sites or nodes
	OneWay  bool     `json:"oneWay"`
	Heal    []string `json:"heal"` // what was cut between the two passes again
}

// verb returns what happens and to whom.
func (e *eventSpec) verb() (verb string, whom []string, err error) {
	for _, x := range []struct {
		verb string
		node string
	}{{"kill", e.Kill}, {"restart", e.Restart}, {"join", e.Join}, {"drain", e.Drain}, {"undrain", e.Undrain}, {"stall", e.Stall}} {
		if x.node != "" {
			verb, whom = verb+x.verb, append(whom, x.node)
		}
	}
	for _, x := range []struct {
		verb string
		ends []string
	}{{"cut", e.Cut}, {"heal", e.Heal}} {
		if len(x.ends) > 0 {
			verb, whom = verb+x.verb, append(whom, x.ends...)
		}
	}
	switch verb {
	case "kill", "restart", "join", "drain", "undrain", "stall":
		err = wantIf(len(whom) == 1, "one node")
	case "cut", "heal":
		err = wantIf(len(whom) == 2 && whom[0] != whom[1], "two sites or nodes")
	default:
		err = errors.New("want exactly one of kill, restart, join, drain, undrain, stall, cut, heal")
	}
	if err == nil && (verb == "stall") != (e.For > 0) {
		err = errors.New("`for` belongs to stall, and stall needs it")
	}
	if err == nil && e.OneWay && verb != "cut" {
		err = errors.New("oneWay belongs to cut")
	}
	return verb, whom, err
}

func wantIf(ok bool, what string) error {
	if ok {
		return nil
	}
	return fmt.Errorf("want %s", what)
}

// A span is a duration as Go writes it: 1m30s, 250ms.
type span time.Duration

// UnmarshalJSON reads a duration that is not negative.
func (s *span) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return fmt.Errorf("%s: want a duration with its unit, as 250ms or 1m30s", b)
	}
	d, err := time.ParseDuration(text)
	if err == nil && d < 0 {
		err = fmt.Errorf("duration %v is negative", d)
	}
	*s = span(d)
	return err
}

// Bounds of a simulation.
const (
	maxScenarioNodes = 200
	maxScenarioTime  = 24 * time.Hour
	afterLastEvent   = 10 * time.Second
	defaultDelay     = 20 * time.Millisecond
)

// readScenario reads and checks a scenario file.
func readScenario(path string) (*scenario, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s, err := parseScenario(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for i, m := range s.Manifests {
		if !filepath.IsAbs(m) {
			s.Manifests[i] = filepath.Join(filepath.Dir(path), m)
		}
	}
	return s, nil
}

func parseScenario(data []byte) (*scenario, error) {
	s := new(scenario)
	if err := decodeScenario(data, s); err != nil {
		return nil, err
	}
	if s.Link.Delay == 0 {
		s.Link.Delay = span(defaultDelay)
	}
	last := span(0)
	for i := range s.Events {
		last = max(last, s.Events[i].At)
	}
	if s.Duration == 0 {
		s.Duration = last + span(afterLastEvent)
	}
	return s, s.check(last)
}

// decodeScenario reads YAML strictly and says what is wrong in the words of the
// file.
func decodeScenario(data []byte, s *scenario) error {
	asJSON, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "error converting YAML to JSON: "))
	}
	d := json.NewDecoder(bytes.NewReader(asJSON))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return fmt.Errorf("%s: a %s does not belong there", cmp.Or(wrong.Field, "the file"), wrong.Value)
		}
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	var given struct{ Events []struct{ At any } }
	if err := json.Unmarshal(asJSON, &given); err != nil {
		return err
	}
	for i, e := range given.Events {
		if e.At == nil {
			return fmt.Errorf("events[%d]: no `at`: when does it happen?", i)
		}
	}
	return nil
}

func (s *scenario) check(last span) error {
	switch {
	case len(s.Manifests) == 0:
		return errors.New("manifests: none named")
	case last > s.Duration:
		return fmt.Errorf("duration: %v, but something happens at %v", time.Duration(s.Duration), time.Duration(last))
	case time.Duration(s.Duration) > maxScenarioTime:
		return fmt.Errorf("duration: %v at most", maxScenarioTime)
	case len(s.Link.Between) != 0:
		return errors.New("link: it is for all; one between two belongs into links")
	}
	known := make(map[string]bool) // node names; false: a site
	nodes := 0
	for i, site := range s.Sites {
		if !overlay.ValidLabel(site.Name) || len(site.Nodes) == 0 {
			return fmt.Errorf("sites[%d]: want a DNS label as name, and nodes", i)
		}
		if _, twice := known[site.Name]; twice {
			return fmt.Errorf("sites[%d]: %s is there twice", i, site.Name)
		}
		known[site.Name] = false
		for j, n := range site.Nodes {
			name := site.Name + "/" + n.Name
			if !overlay.ValidLabel(n.Name) || known[name] {
				return fmt.Errorf("sites[%d].nodes[%d]: want a DNS label that is no other node's, got %q", i, j, n.Name)
			}
			known[name] = true
			nodes++
		}
	}
	if nodes == 0 || nodes > maxScenarioNodes {
		return fmt.Errorf("sites: %d nodes, want 1 to %d", nodes, maxScenarioNodes)
	}
	for i, l := range append([]linkSpec{s.Link}, s.Links...) {
		where := "link"
		if i > 0 {
			where = fmt.Sprintf("links[%d]", i-1)
			if err := wantIf(len(l.Between) == 2, "two ends in between"); err != nil {
				return fmt.Errorf("%s: %w", where, err)
			}
		}
		for _, end := range l.Between {
			if _, ok := known[end]; !ok {
				return fmt.Errorf("%s: no site or node %q", where, end)
			}
		}
		for _, share := range []float64{l.Loss, l.Duplicate, l.Reorder} {
			if !(share >= 0 && share <= 1) {
				return fmt.Errorf("%s: a share of %v is not between 0 and 1", where, share)
			}
		}
	}
	return s.checkEvents(known)
}

func (s *scenario) checkEvents(known map[string]bool) error {
	for i := range s.Events {
		verb, whom, err := s.Events[i].verb()
		for _, w := range whom {
			isNode, ok := known[w]
			if err == nil && (!ok || !isNode && verb != "cut" && verb != "heal") {
				err = fmt.Errorf("no such node %q, want one of sites as site/node", w)
				if verb == "cut" || verb == "heal" {
					err = fmt.Errorf("no such site or node %q", w)
				}
			}
		}
		if err != nil {
			return fmt.Errorf("events[%d]: %w", i, err)
		}
	}
	return s.checkLives()
}

// checkLives refuses what happens to a node that is not there, or comes although
// it is.
func (s *scenario) checkLives() error {
	order := make([]int, len(s.Events))
	absent := make(map[string]bool)
	for i := range s.Events {
		order[i] = i
		if s.Events[i].Join != "" {
			absent[s.Events[i].Join] = true
		}
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(s.Events[i].At, s.Events[j].At) })
	killed, drained := make(map[string]bool), make(map[string]bool)
	for _, i := range order {
		verb, whom, _ := s.Events[i].verb()
		n := whom[0]
		wrong := ""
		switch verb {
		case "cut", "heal":
			continue
		case "join":
			if !absent[n] {
				wrong = "it is there already"
			}
			absent[n] = false
		case "restart":
			if !killed[n] {
				wrong = "it was not killed"
			}
			killed[n] = false
		default:
			if absent[n] || killed[n] {
				wrong = "it is not there at that time"
			}
			if verb == "undrain" && !drained[n] {
				wrong = cmp.Or(wrong, "it was not drained")
			}
			killed[n] = killed[n] || verb == "kill"
			drained[n] = verb == "drain" || drained[n] && verb != "undrain"
		}
		if wrong != "" {
			return fmt.Errorf("events[%d]: %s %s: %s", i, verb, n, wrong)
		}
	}
	return nil
}

// concerns reports whether an end of a link, a site or a node, is or holds a
// node.
func concerns(end string, id overlay.NodeID) bool {
	if strings.Contains(end, "/") {
		return end == id.String()
	}
	return end == id.Site
}
