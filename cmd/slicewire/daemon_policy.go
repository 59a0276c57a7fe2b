package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"slicewire/api"
	"slicewire/overlay"
	"slicewire/router"
)

// policed is what the control socket needs of the daemon to show policy at work.
type policed interface {
	Flows(ctx context.Context, slice string) (api.FlowList, error)
	Trace(ctx context.Context, req api.TraceRequest) (api.TraceReply, error)
	Facts(ctx context.Context, slice string) ([]api.PolicyFacts, error)
}

func (c *control) handlePolicy(mux *http.ServeMux) {
	ask := func(name string, do func(r *http.Request) (any, error)) {
		mux.HandleFunc(name, func(w http.ResponseWriter, r *http.Request) {
			v, err := do(r)
			switch {
			case errors.Is(err, errMayNot):
				c.refuse(w, http.StatusForbidden, err)
			case err != nil:
				c.refuse(w, http.StatusNotFound, err)
			default:
				c.answer(w, v)
			}
		})
	}
	ask("GET /v1/flows", func(r *http.Request) (any, error) { return c.policed.Flows(r.Context(), r.FormValue("slice")) })
	ask("GET /v1/policy", func(r *http.Request) (any, error) { return c.policed.Facts(r.Context(), r.FormValue("slice")) })
	ask("POST /v1/trace", func(r *http.Request) (any, error) {
		var req api.TraceRequest
		if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxRequestBody)).Decode(&req); err != nil {
			return nil, fmt.Errorf("trace request: %w", err)
		}
		if req.Send && !mayChange(r.Context()) {
			return nil, errMayNot
		}
		return c.policed.Trace(r.Context(), req)
	})
}

var errMayNot = errors.New("trace --send is for root and for the user that the daemon runs as")

// sliceViews are the node's slices, or the one that is named.
func (d *daemon) sliceViews(slice string) ([]sliceView, error) {
	if slice != "" {
		v, err := d.sliceFor(slice)
		if err != nil {
			return nil, err
		}
		return []sliceView{*v}, nil
	}
	view := d.view.Load()
	if view == nil {
		return nil, nil
	}
	return view.slices, nil
}

// Flows lists flows and rules, by slice and age.
func (d *daemon) Flows(_ context.Context, slice string) (api.FlowList, error) {
	out := api.FlowList{APIVersion: api.Version, Kind: "FlowList", Flows: []api.FlowStatus{}, Rules: []api.RuleStatus{}, Slices: []api.PolicyState{}}
	views, err := d.sliceViews(slice)
	if err != nil {
		return out, err
	}
	for i := range views {
		n := views[i].node
		flows := n.router.Flows()
		slices.SortFunc(flows, func(a, b router.FlowInfo) int {
			return cmp.Or(cmp.Compare(a.Age, b.Age), a.Src.Compare(b.Src), a.Dst.Compare(b.Dst), cmp.Compare(a.SrcPort, b.SrcPort), cmp.Compare(a.DstPort, b.DstPort))
		})
		for _, f := range flows {
			out.Flows = append(out.Flows, api.FlowStatus{
				Slice: n.name, Protocol: protocolName(f.Proto), Source: f.Src, SourcePort: f.SrcPort, Destination: f.Dst, DestinationPort: f.DstPort,
				SourceHere: f.SrcHere, DestinationHere: f.DstHere,
				Packets: f.Forth.Packets, Bytes: f.Forth.Bytes, BackPackets: f.Back.Packets, BackBytes: f.Back.Bytes,
				AgeSecs: f.Age.Seconds(), IdleSecs: f.Idle.Seconds(), Egress: f.Egress, Ingress: f.Ingress,
			})
		}
		rules := n.router.Rules()
		for _, r := range rules {
			out.Rules = append(out.Rules, api.RuleStatus{Slice: n.name, Name: r.Name, Flows: r.Flows, Packets: r.Packets, Bytes: r.Bytes, Denied: r.Denied})
		}
		out.Slices = append(out.Slices, api.PolicyState{Slice: n.name, Rules: len(rules)})
	}
	return out, nil
}

// Facts tells what a proposal for the policy of slices is judged by.
func (d *daemon) Facts(_ context.Context, slice string) ([]api.PolicyFacts, error) {
	views, err := d.sliceViews(slice)
	if err != nil {
		return nil, err
	}
	out := []api.PolicyFacts{}
	for i := range views {
		v := &views[i]
		self := d.id.authority()
		sites := make(map[string]int)
		for _, s := range v.sites {
			sites[s.Name] = s.Index
		}
		out = append(out, api.PolicyFacts{
			Slice: v.node.name, Node: self.ID, Mesh: self.Mesh, Nodes: publicOf(v.view.Nodes),
			Known: overlay.Know(self.ID, &v.attachment, &v.view), Indexes: map[string]map[string]int{v.node.name: sites},
			Flows: v.node.router.Flows(), Open: len(v.node.router.Rules()) == 0,
		})
	}
	return out, nil
}

// publicOf leaves of nodes what policies ask about.
func publicOf(nodes []overlay.Node) []overlay.Node {
	out := make([]overlay.Node, len(nodes))
	for i, n := range nodes {
		out[i] = overlay.Node{ID: n.ID, Gateway: n.Gateway, Prefixes: n.Prefixes}
	}
	return out
}

func protocolName(proto uint8) string {
	switch proto {
	case overlay.ProtoTCP:
		return "tcp"
	case overlay.ProtoUDP:
		return "udp"
	case overlay.ProtoICMP:
		return "icmp"
	case 58:
		return "icmpv6"
	case overlay.ProtoGRE:
		return "gre"
	case overlay.ProtoSCTP:
		return "sctp"
	}
	return strconv.Itoa(int(proto))
}

// protocolNumber reads a protocol as people write it; icmp is that of the family.
func protocolNumber(text string, v6 bool) (uint8, error) {
	switch strings.ToLower(text) {
	case "tcp", "":
		return overlay.ProtoTCP, nil
	case "udp":
		return overlay.ProtoUDP, nil
	case "icmp", "icmpv6":
		if v6 {
			return 58, nil
		}
		return overlay.ProtoICMP, nil
	case "gre":
		return overlay.ProtoGRE, nil
	case "sctp":
		return overlay.ProtoSCTP, nil
	}
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is no protocol: tcp, udp, icmp, gre, sctp or a number", text)
	}
	return uint8(n), nil
}

// end finds the address that a trace's end stands for, as ping's targets do, or
// a workload's by its name. like is the other end's, whose family it takes.
func (v *sliceView) end(text string, like netip.Addr) (netip.Addr, error) {
	for _, w := range v.attachment.Workloads {
		if w.Name == text {
			if like.IsValid() && like.Is6() {
				return w.Addr6, nil
			}
			return w.Addr, nil
		}
	}
	a, err := v.target(text)
	if err != nil {
		err = fmt.Errorf("%s on slice %s: %w, and no workload", text, v.node.name, err)
	}
	return a, err
}

// Trace asks the slice's router what would happen to a packet.
func (d *daemon) Trace(ctx context.Context, req api.TraceRequest) (api.TraceReply, error) {
	out := api.TraceReply{APIVersion: api.Version, Kind: "Trace"}
	v, err := d.sliceFor(req.Slice)
	if err != nil {
		return out, err
	}
	out.Slice = v.node.name
	if out.Source, err = v.end(req.From, netip.Addr{}); err != nil {
		return out, err
	}
	if out.Destination, err = v.end(req.To, out.Source); err != nil {
		return out, err
	}
	if out.Source.Is4() != out.Destination.Is4() {
		return out, fmt.Errorf("%v and %v are of different families", out.Source, out.Destination)
	}
	proto, err := protocolNumber(req.Protocol, out.Source.Is6())
	if err != nil {
		return out, err
	}
	out.Protocol = protocolName(proto)
	pkt := tracePacket(out.Source, out.Destination, proto, req.Sport, req.Dport)
	in, ok := v.node.router.PortOf(out.Source)
	if !ok {
		in = router.OutsideName
	}
	tr, ok := v.node.router.Trace(in, pkt)
	if !ok {
		return out, fmt.Errorf("port %s of slice %s is closing", in, out.Slice)
	}
	out.Passes, out.Drop = tr.Out != "", tr.Reason
	out.Stages = v.stages(in, &out, tr)
	if req.Send {
		f := router.Flow{Src: out.Source, Dst: out.Destination, Proto: proto}
		switch proto {
		case overlay.ProtoTCP, overlay.ProtoUDP:
			f.SrcPort, f.DstPort = req.Sport, req.Dport
		case overlay.ProtoICMP, 58:
			f.SrcPort, f.DstPort = req.Sport, req.Sport
		}
		if err := d.sendTrace(ctx, v, &out, in, tr, pkt, f); err != nil {
			return out, err
		}
	}
	return out, nil
}

// answers counts the packets that came back of a flow.
func (n *sliceNode) answers(f router.Flow) (packets uint64, known bool) {
	for _, x := range n.router.Flows() {
		if x.Flow == f {
			return x.Back.Packets, true
		}
	}
	return 0, false
}
