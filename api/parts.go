package api

import (
	"net/netip"
	"time"
)

// NameStatus says how a slice's name server is doing.
type NameStatus struct {
	Zones     []string                     `json:"zones"`
	Addresses []netip.AddrPort             `json:"addresses"` // inside the slice
	Names     int                          `json:"names"`     // that are kept; those of endpoints and ports are worked out when asked for
	Serial    uint32                       `json:"serial"`
	Upstream  []netip.AddrPort             `json:"upstream"`
	Answers   map[string]uint64            `json:"answers"` // by response code
	Queries   map[string]map[string]uint64 `json:"queries"` // by type, then by response code
	From      map[string]uint64            `json:"from"`    // local, cache, upstream, stale; failed
	Took      []TookStatus                 `json:"took"`    // how long answers took
	Truncated uint64                       `json:"truncated"`
	Dropped   map[string]uint64            `json:"dropped"`
	Streams   int                          `json:"streams"`
	Forwarded uint64                       `json:"forwarded"`
	Forged    uint64                       `json:"forged"` // replies from upstream that belonged to no question
}

// TookStatus counts answers that took less than a bound, and not less than the
// bound before.
type TookStatus struct {
	BelowMs *float64 `json:"belowMs"` // null: no bound
	Count   uint64   `json:"count"`
}

// HubStatus is how a node stands with the hub that it has its objects from.
type HubStatus struct {
	Namespace  string            `json:"namespace"`
	Synced     bool              `json:"synced"` // it has seen all objects since it started
	Heard      *time.Time        `json:"heard"`  // when the hub last said that it is well
	Fault      string            `json:"fault"`  // what is wrong; empty: nothing
	Conditions []HubCondition    `json:"conditions"`
	Objects    map[string]int    `json:"objects"` // by kind, that count
	Held       []string          `json:"held"`    // that vanished with many others and go on to count
	Refused    map[string]string `json:"refused"` // that are not in force as they are, and why
	Denied     string            `json:"denied"`  // what the hub does not let the node write; empty: nothing
	Writes     uint64            `json:"writes"`  // requests that write
	LostEvents uint64            `json:"lostEvents"`
}

// HubCondition is HubStale or HubHolding.
type HubCondition struct {
	Type   string    `json:"type"`
	Status bool      `json:"status"`
	Since  time.Time `json:"since,omitzero"`
}
