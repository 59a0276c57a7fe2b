package cluster

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// keepEvery bounds how often what the cluster says is kept: pods come and go all
// the time.
const keepEvery = 5 * time.Second

// keptKinds are the kinds that exports, doors, names and admission follow from.
var keptKinds = []Kind{KindNamespace, KindPod, KindService, KindEndpointSlice, KindExport, KindMCSExport}

// kept is the form of what is kept: the objects that packets go by, and which
// ports were given.
type kept struct {
	Ports   map[string]uint16 `json:"ports"`
	Objects []keptObject      `json:"objects"`
}

type keptObject struct {
	*Object
	Ours bool `json:",omitempty"`
}

// restore has what was kept count until the server is heard.
func (c *Cluster) restore(state []byte) error {
	if len(state) == 0 {
		return nil
	}
	var k kept
	if err := json.Unmarshal(state, &k); err != nil {
		return err
	}
	list := make([]*Object, 0, len(k.Objects))
	for _, x := range k.Objects {
		if x.Object == nil || !x.complete() {
			return fmt.Errorf("an object of kind %d lacks what its kind has", len(list))
		}
		x.ours = x.Ours
		list = append(list, x.Object)
	}
	c.before, c.saved = NewObjects(list), sha256.Sum256(state)
	for key, port := range k.Ports {
		c.given[key] = port
	}
	return nil
}

// complete reports whether an object has what is read of its kind.
func (x *keptObject) complete() bool {
	switch x.Kind {
	case KindPod:
		return x.Pod != nil
	case KindService:
		return x.Service != nil
	case KindEndpointSlice:
		return x.Slice != nil
	case KindExport, KindMCSExport:
		return x.Export != nil
	}
	return slices.Contains(keptKinds, x.Kind)
}

// keep saves what the cluster said last, if that is another.
func (c *Cluster) keep() {
	if c.latest == nil {
		return
	}
	text, err := json.Marshal(c.keeping(c.latest, c.state.Load()))
	sum := sha256.Sum256(text)
	if err == nil && sum != c.saved {
		err = c.cfg.Save(text)
	}
	if err != nil {
		c.cfg.Log.Error("what the cluster says is not kept for a restart", "err", err)
		return
	}
	c.latest, c.saved = nil, sum
}

// keeping picks what is kept: of namespaces that slices bind, and of slicewire's own.
func (c *Cluster) keeping(o *Objects, state *State) kept {
	k := kept{Ports: c.given, Objects: []keptObject{}}
	for _, kind := range keptKinds {
		for _, x := range o.kinds[kind] {
			namespace := x.Namespace
			if kind == KindNamespace {
				namespace = x.Name
			}
			bound := namespace == c.cfg.Namespace || slices.ContainsFunc(state.Slices, func(s Slice) bool { return s.binds(namespace) })
			if bound {
				k.Objects = append(k.Objects, keptObject{x, x.ours})
			}
		}
	}
	return k
}
