package gossip

import (
	"time"

	"slicewire/overlay"
)

// terms writes the terms of an export; nothing where they say nothing. What goes
// along with it comes last and is left out where there is none.
func (w *writer) terms(t overlay.ExportTerms) {
	if t == (overlay.ExportTerms{}) {
		return
	}
	w.u8(int(t.Type))
	w.u32(t.AffinitySeconds)
	created := int64(0)
	if !t.Created.IsZero() {
		created = t.Created.Unix()
		w.bad = w.bad || created <= 0 || created > maxUnixTime || t.Created.Nanosecond() != 0
	}
	w.bad = w.bad || t.Type > overlay.LastServiceType || len(t.Exported) > overlay.MaxExported
	w.u64(uint64(created))
	if t.Exported != "" {
		w.u16(len(t.Exported))
		w.b = append(w.b, t.Exported...)
	}
}

// terms reads them.
func (r *reader) terms() (t overlay.ExportTerms) {
	if r.bad || len(r.b) == 0 {
		return t
	}
	t.Type, t.AffinitySeconds = overlay.ServiceType(r.u8()), r.u32()
	seconds := r.u64()
	r.bad = r.bad || t.Type > overlay.LastServiceType || seconds > maxUnixTime
	if seconds != 0 && !r.bad {
		t.Created = time.Unix(int64(seconds), 0).UTC()
	}
	if !r.bad && len(r.b) > 0 {
		n := int(r.u16())
		r.bad = r.bad || n == 0 || n > overlay.MaxExported
		if !r.bad {
			t.Exported = string(r.take(n))
		}
	}
	r.bad = r.bad || t == overlay.ExportTerms{}
	return t
}
