package overlay

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
)

// A Node is a member of a slice as the records tell of it.
type Node struct {
	ID         NodeID
	PublicKey  [32]byte         // zero for the node that looks
	Generation uint64           // of PublicKey
	Next       SliceKey         // while keys change
	Endpoints  []netip.AddrPort // UDP, best first; none for the node that looks
	Gateway    bool             // it speaks for its site
	Prefixes   []netip.Prefix   // its own blocks, sorted
}

// A Tag names a node in few bytes, the same everywhere. Two nodes with one tag
// would be taken for one another when links are judged, and for nothing else.
type Tag uint64

// Tag returns the node's tag.
func (id NodeID) Tag() Tag {
	sum := sha256.Sum256([]byte(id.String()))
	return Tag(binary.BigEndian.Uint64(sum[:]))
}

// A Link is the way between two nodes that are peers, whichever end is named
// first.
type Link struct{ a, b Tag }

// LinkOf returns the link between two nodes.
func LinkOf(a, b Tag) Link { return Link{min(a, b), max(a, b)} }

// Links is what a node knows of the state of links: its own by probing, those
// of its peers by their word. The zero value says that all is well.
type Links struct {
	Down    map[Link]bool
	Leaving map[Tag]bool // gateways that want no traffic of others while anybody else can carry it
}

func (l *Links) up(a, b *member) bool { return a == b || !l.Down[LinkOf(a.tag, b.tag)] }
