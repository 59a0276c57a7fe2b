package publish

import (
	"container/list"
	"net/netip"
)

// A flowTable holds the UDP flows of one port by client, and decides which
// gives way when there are too many: the oldest of a client that has its fill,
// else the oldest of all. It is not safe for concurrent use.
type flowTable[T any] struct {
	max, maxPerClient int
	flows             map[netip.AddrPort]*entry[T]
	order             list.List // of *entry[T], the most recently used first
	clients           map[netip.Addr]*list.List
}

type entry[T any] struct {
	client   netip.AddrPort
	flow     T
	all, own *list.Element // its places in order and in its client's list
}

func newFlowTable[T any](limit, limitPerClient int) *flowTable[T] {
	return &flowTable[T]{
		max: limit, maxPerClient: limitPerClient,
		flows:   make(map[netip.AddrPort]*entry[T]),
		clients: make(map[netip.Addr]*list.List),
	}
}

// use returns a client's flow and makes it the most recently used.
func (t *flowTable[T]) use(client netip.AddrPort) (flow T, ok bool) {
	e := t.flows[client]
	if e == nil {
		return flow, false
	}
	t.order.MoveToFront(e.all)
	t.clients[client.Addr()].MoveToFront(e.own)
	return e.flow, true
}

// add adds a client's flow, which must not be there, and returns the flow that
// gives way for it, if one has to: in a crowd, one does as if there were too
// many here.
func (t *flowTable[T]) add(client netip.AddrPort, flow T, crowded bool) (evicted T, full bool) {
	own := t.clients[client.Addr()]
	var victim *list.Element
	if own != nil && own.Len() >= t.maxPerClient {
		victim = own.Back()
	} else if len(t.flows) >= t.max || crowded && len(t.flows) > 0 {
		victim = t.order.Back()
	}
	if victim != nil {
		e := victim.Value.(*entry[T])
		evicted, full = e.flow, true
		t.remove(e.client)
		own = t.clients[client.Addr()]
	}
	if own == nil {
		own = list.New()
		t.clients[client.Addr()] = own
	}
	e := &entry[T]{client: client, flow: flow}
	e.all, e.own = t.order.PushFront(e), own.PushFront(e)
	t.flows[client] = e
	return evicted, full
}

// remove takes a client's flow away, if it is there.
func (t *flowTable[T]) remove(client netip.AddrPort) {
	e := t.flows[client]
	if e == nil {
		return
	}
	delete(t.flows, client)
	t.order.Remove(e.all)
	own := t.clients[client.Addr()]
	if own.Remove(e.own); own.Len() == 0 {
		delete(t.clients, client.Addr())
	}
}
