package overlay

import (
	"net/netip"
	"time"
)

// NodeID names a node: its site and its name within the site.
type NodeID struct {
	Site, Node string
}

// String returns "site/node".
func (id NodeID) String() string { return id.Site + "/" + id.Node }

// Kind says what a record is about.
type Kind uint8

// The kinds of records. Their values are part of the wire format; 8 is not used.
const (
	KindNode    Kind = 1 // where a node is reached; Slice and Name are empty
	KindKey     Kind = 2 // a node's WireGuard public key on a slice; Name is empty
	KindPrefix  Kind = 3 // the prefixes a node announces on a slice; Name is empty
	KindService Kind = 4 // a service's endpoints behind a node; Name is "namespace/service"

	KindRevocation Kind = 5 // certificates that are void, told by an issuer; Slice is empty, Name says whose: see Revocation
	KindIssuer     Kind = 6 // where a node that signs certificates is asked for them; Slice and Name are empty
	KindRoot       Kind = 7 // an authority that comes after another, told by itself; Slice is empty, Name is the sum of its key

	KindWorkloads Kind = 8 // a node's workloads in a namespace; Name is the namespace, Service lists them as endpoints and nothing else
	KindLost      Kind = 9 // the nodes that a gateway does not reach on a slice; Name is empty

	LastKind = KindLost
)

// Key identifies a record among all records of its origin. A newer record
// replaces an older one with the same key.
type Key struct {
	Kind  Kind
	Slice string
	Name  string
}

// Version orders the records of one origin: first by Epoch (the node's boot
// counter), then by Seq within the epoch.
type Version struct {
	Epoch, Seq uint64
}

// Less reports whether v is older than w.
func (v Version) Less(w Version) bool {
	return v.Epoch < w.Epoch || v.Epoch == w.Epoch && v.Seq < w.Seq
}

// A Record is one fact that a node tells of itself, or an issuer of the
// certificates it answers for. It is valid only with the origin's signature and
// within what the origin's certificate grants.
type Record struct {
	Origin   NodeID
	Key      Key
	Version  Version
	NotAfter time.Time    // whole seconds; the record is void afterwards
	Deleted  bool         // a tombstone: the fact no longer holds; the body is nil
	Node     *NodeBody    // with KindNode
	WGKey    *KeyBody     // with KindKey
	Prefix   *PrefixBody  // with KindPrefix
	Service  *ServiceBody // with KindService and KindWorkloads

	Revocation *RevocationBody // with KindRevocation
	Issuer     *IssuerBody     // with KindIssuer
	Lost       *LostBody       // with KindLost
	Root       *RootBody       // with KindRoot
}

// NodeBody says where a node's tunnels are reached.
type NodeBody struct {
	Endpoints []netip.AddrPort // UDP, best first
}

// KeyBody is the WireGuard (Curve25519) public key that a node sends with, and
// while keys change the one that it takes as well and will send with next.
type KeyBody struct {
	PublicKey  [32]byte
	Generation uint64   // of PublicKey
	Next       SliceKey // zero: none
}

// PrefixBody lists what a node delivers on a slice.
type PrefixBody struct {
	Prefixes []netip.Prefix // masked
}

// ServiceBody is one node's part of an exported service.
type ServiceBody struct {
	Ports     []ServicePort
	Aliases   []string // further names, unique within the slice
	Endpoints []Endpoint
	ExportTerms
}

// Endpoint is one backend of a service, with addresses of its own on the slice.
type Endpoint struct {
	Name  string     // a DNS label
	Addr  netip.Addr // IPv4
	Addr6 netip.Addr // IPv6
}

// RevocationBody says which certificates of a node are void.
type RevocationBody struct {
	Until time.Time // those enrolled up to then, in whole seconds; zero for the key of an issuer
}

// LostBody lists the nodes of a slice that a gateway has known and does not
// reach. Others that would reach them only by it need not find out by
// themselves.
type LostBody struct {
	Nodes []NodeID // sorted by String, each once
}

// IssuerBody says where certificates and the key of the gossip are asked for.
type IssuerBody struct {
	Endpoints []netip.AddrPort // TCP, best first
	Keys      uint64           // version of the gossip's key that is handed out there; 0: the mesh's first
}

// RootBody is what the mesh's next authority says of itself.
type RootBody struct {
	Statement []byte // 1 to MaxRootStatement bytes: certificates and a signature, which whoever trusts authorities reads
}

// Authority is what a verified certificate allows its holder to say.
type Authority struct {
	Mesh      string
	ID        NodeID // of an issuer: a name made of its key, with an empty Site
	Gateway   bool
	Index     int // the node's number within its site: its block of every site prefix
	NotBefore time.Time
	NotAfter  time.Time
	Enrolled  time.Time // when the node was let in; renewals keep it
	Grants    []Grant   // sorted by slice; of a limited issuer: what it may grant
	Issuer    *Issuer   // nil: a node
}

// An Issuer is a holder that signs certificates and revocations, and nothing else.
type Issuer struct {
	Root  bool     // an authority that the mesh trusts by itself
	Sites []string // whose nodes it may certify, sorted; empty: those of any site, with any grant
}

// Grant lists the prefixes that a node may announce on a slice, both families.
type Grant struct {
	Slice    string
	Prefixes []netip.Prefix
}
