package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"slicewire/api"
	"slicewire/overlay"
	"slicewire/router"
)

// stages words what the router says, in the order in which it asks.
func (v *sliceView) stages(in string, out *api.TraceReply, tr router.Trace) []api.TraceStage {
	var list []api.TraceStage
	say := func(ok bool, stage, format string, args ...any) bool {
		list = append(list, api.TraceStage{Stage: stage, Result: fmt.Sprintf(format, args...), OK: ok})
		return ok
	}
	switch {
	case in != router.OutsideName:
		say(true, "peer", "comes in by %s, from this node", in)
	case v.peerOf(out.Source) == "" && !tr.SourceOK:
		say(false, "peer", "no tunnel may send from %v", out.Source)
	default:
		say(true, "peer", "comes in by the tunnel, from %s", cmp.Or(v.peerOf(out.Source), "outside"))
	}
	if !say(tr.SourceOK, "source", "%s %s send from %v", in, may(tr.SourceOK), out.Source) {
		return list
	}
	switch {
	case tr.Known && tr.Back:
		say(true, "flow", "an answer of a flow that was allowed by %s", rules(tr.Policy))
	case tr.Known:
		say(true, "flow", "of a flow that was allowed by %s", rules(tr.Policy))
	default:
		say(true, "flow", "of none that is remembered")
	}
	if !tr.Known {
		switch {
		case !tr.Asked:
			say(true, "policy", "the slice has none: everything may pass")
		case tr.Policy.Denied != "":
			rule, who := tr.Policy.Egress, out.Source
			other := out.Destination
			if tr.Policy.Denied == "ingress" {
				rule, who, other = tr.Policy.Ingress, out.Destination, out.Source
			}
			say(false, "policy", "%s is denied: %s selects %v (%s) and nothing allows %v (%s)", tr.Policy.Denied, rule, who, v.whose(who), other, v.whose(other))
			return list
		case !tr.SrcHere && !tr.DstHere && tr.Out != "":
			say(true, "policy", "is asked at the packet's ends, not here")
		default:
			say(true, "policy", "allowed by %s", rules(tr.Policy))
		}
	}
	if !say(tr.Out != "" || tr.Reason != overlay.DropNoRoute.String(), "route", "%s", v.way(out.Destination, tr)) {
		return list
	}
	if tr.Out == "" {
		say(false, "output", "is dropped: %s", tr.Reason)
	} else {
		say(true, "output", "leaves by %s", tr.Out)
	}
	return list
}

func may(ok bool) string {
	if ok {
		return "may"
	}
	return "may not"
}

func rules(v router.Verdict) string {
	var parts []string
	for _, x := range []string{v.Egress, v.Ingress} {
		if x != "" {
			parts = append(parts, x)
		}
	}
	if len(parts) == 0 {
		return "no rule: none selects its ends"
	}
	return strings.Join(parts, " and ")
}

func (v *sliceView) way(dst netip.Addr, tr router.Trace) string {
	switch {
	case tr.Reason == overlay.DropNoRoute.String():
		return fmt.Sprintf("none leads to %v", dst)
	case tr.DstHere:
		return fmt.Sprintf("%v is on this node", dst)
	}
	if p := v.peerOf(dst); p != "" {
		return fmt.Sprintf("%v is behind %s", dst, p)
	}
	return fmt.Sprintf("%v is outside", dst)
}

// peerOf names the peer that an address is behind.
func (v *sliceView) peerOf(a netip.Addr) string {
	best, name := -1, ""
	for _, p := range v.view.Peers {
		for _, x := range p.Prefixes {
			if x.Contains(a) && x.Bits() > best {
				best, name = x.Bits(), p.ID.String()
			}
		}
	}
	return name
}

// whose says what is known of an address.
func (v *sliceView) whose(a netip.Addr) string {
	for _, k := range overlay.Know(v.self, &v.attachment, &v.view) {
		if !slices.Contains(k.Addrs, a) {
			continue
		}
		what := "node " + k.Node.String()
		switch {
		case k.Service != "":
			what = "service " + k.Service
		case k.Workload != "":
			what = "workload " + k.Workload
		}
		if k.Namespace == "" {
			return what + ", in no namespace"
		}
		return what + ", namespace " + k.Namespace
	}
	return "nothing is known of it"
}
