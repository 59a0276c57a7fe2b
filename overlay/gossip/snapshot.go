package gossip

// A snapshot holds what a node knows, for its next start. It is a sequence of
// items; what is damaged is skipped up to the next item that is whole.
//
//	item  = 4 bytes itemMagic, u8 type, u32 length of data, data, u32 CRC-32C of type, length and data
//	chain = chain                                     as in message.go; every chain comes twice,
//	                                                  first and last, for many records hang on it
//	record = sealed
//	floor = origin, u8 kind, str slice, str name, u64 epoch, u64 sequence
//	gateway = str name, addr, u16 port, 97 bytes    as in sessionmessage.go; of a leaf, to dial next time
//
// The checksum finds accidents, not forgery: records are verified anew, and
// floors, which only refuse, are as safe as the file.

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"slicewire/overlay"
)

const (
	itemChain  = 1
	itemRecord = 2
	itemFloor  = 3
	itemEntry  = 4 // gateway

	itemOverhead = 4 + 1 + 4 + 4
	maxItem      = 128 << 10
	maxSnapshot  = 64 << 20
)

var itemMagic = [4]byte{0xf7, 'S', 'W', 'g'}

// ErrDamaged says that part of a snapshot could not be read. What could be is
// in use.
var ErrDamaged = errors.New("snapshot damaged")

// Snapshot returns what is known, own records too, for Restore. It is worth
// saving after each Changed.
func (g *Gossip) Snapshot() []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	var chains []byte
	for _, fp := range sortedPrints(g.chains) {
		var w writer
		w.chain(g.chains[fp])
		chains = appendItem(chains, itemChain, w.b)
	}
	out := bytes.Clone(chains)
	for _, id := range g.ledger.Origins() {
		for _, h := range g.ledger.Of(id) {
			out = appendItem(out, itemRecord, h.Raw)
		}
	}
	for _, f := range g.ledger.Floors() {
		var w writer
		w.id(f.Origin)
		w.u8(int(f.Key.Kind))
		w.str(f.Key.Slice)
		w.str(f.Key.Name)
		w.u64(f.Version.Epoch)
		w.u64(f.Version.Seq)
		out = appendItem(out, itemFloor, w.b)
	}
	for _, e := range g.sessions.entries() {
		var w writer
		w.gateway(e)
		out = appendItem(out, itemEntry, w.b)
	}
	return append(out, chains...)
}

func sortedPrints(m map[fingerprint]chain) []fingerprint {
	out := make([]fingerprint, 0, len(m))
	for fp := range m {
		out = append(out, fp)
	}
	slices.SortFunc(out, func(a, b fingerprint) int { return bytes.Compare(a[:], b[:]) })
	return out
}

func appendItem(out []byte, kind byte, data []byte) []byte {
	out = append(out, itemMagic[:]...)
	at := len(out)
	out = append(out, kind)
	out = binary.BigEndian.AppendUint32(out, uint32(len(data)))
	out = append(out, data...)
	return binary.BigEndian.AppendUint32(out, crc32.Checksum(out[at:], castagnoli))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// nextItem returns the first whole item of b, what follows it, and whether
// anything had to be skipped. ok is false when there is none left.
func nextItem(b []byte) (kind byte, data, rest []byte, skipped, ok bool) {
	for {
		i := bytes.Index(b, itemMagic[:])
		if i < 0 {
			return 0, nil, nil, skipped || len(b) > 0, false
		}
		skipped = skipped || i > 0
		b = b[i:]
		if len(b) >= itemOverhead {
			n := int(binary.BigEndian.Uint32(b[5:]))
			if n <= maxItem && n <= len(b)-itemOverhead {
				end := 9 + n
				if crc32.Checksum(b[4:end], castagnoli) == binary.BigEndian.Uint32(b[end:]) {
					return b[4], b[9:end], b[end+4:], skipped, true
				}
			}
		}
		skipped = true
		b = b[len(itemMagic):]
	}
}

func rank(r overlay.Record) int {
	if r.Key.Kind == overlay.KindRevocation {
		return 0
	}
	return 1
}

// Restore takes in what Snapshot gave to an earlier life of this node. Every
// record is verified as if it came from the network; what is void by now or
// refused is left out and counted. It returns how many records are in use. The
// error wraps ErrDamaged if something could not be read, or was too large; the
// rest counts all the same.
//
// Call it before Set and before Run.
func (g *Gossip) Restore(snapshot []byte) (n int, err error) {
	whole := len(snapshot)
	damaged := whole > maxSnapshot
	snapshot = snapshot[:min(whole, maxSnapshot)]
	chains := make(map[fingerprint]chain)
	var records []sealed
	var floors []overlay.Floor
	for {
		kind, data, rest, skipped, ok := nextItem(snapshot)
		damaged = damaged || skipped
		if !ok {
			break
		}
		snapshot = rest
		r := reader{b: data}
		switch kind {
		case itemChain:
			if c := r.chain(); !r.bad && len(r.b) == 0 {
				chains[c.leaf()] = c
			}
		case itemRecord:
			s, err := unseal(data)
			if err != nil {
				damaged = true
				continue
			}
			records = append(records, s)
		case itemFloor:
			f := overlay.Floor{Origin: r.id(), Key: overlay.Key{Kind: overlay.Kind(r.u8()), Slice: r.str(), Name: r.str()}}
			f.Version = overlay.Version{Epoch: r.u64(), Seq: r.u64()}
			if !r.bad && len(r.b) == 0 {
				floors = append(floors, f)
			}
		case itemEntry:
			if e := r.gateway(); !r.bad && len(r.b) == 0 && g.cfg.Leaf {
				e.meta = bytes.Clone(e.meta)
				g.sessions.learn(e, g.cfg.Self)
			}
		}
	}
	// Revocations first: what they void is then refused instead of dropped.
	slices.SortStableFunc(records, func(a, b sealed) int {
		return rank(a.record) - rank(b.record)
	})
	for _, s := range records {
		if s.record.Key.Kind != overlay.KindRevocation {
			g.settle()
		}
		if _, fresh := g.accept(s, chains, false); fresh {
			n++
		}
	}
	g.settle()
	g.mu.Lock()
	for _, f := range floors {
		g.ledger.RaiseFloor(f)
	}
	g.mu.Unlock()
	if n > 0 {
		g.signal()
	}
	if damaged {
		return n, fmt.Errorf("snapshot of %d bytes, %d records in use: %w", whole, n, ErrDamaged)
	}
	return n, nil
}
