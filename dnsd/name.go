package dnsd

// Names are compared and kept in wire form (RFC 1035 section 3.1: length, label,
// ..., 0), in lower case. There a label may hold any byte without being
// mistaken for two, and a question's name is looked up as it came.

// The limits of RFC 1035 section 2.3.4.
const (
	maxName  = 255
	maxLabel = 63
)

// appendName appends the wire form of a dotted name, with or without the final
// dot. It takes printable ASCII without spaces or escapes, which is all that
// anybody may call a service, and reports whether name is that.
func appendName(dst []byte, name string) ([]byte, bool) {
	if n := len(name); n > 0 && name[n-1] == '.' {
		name = name[:n-1]
	}
	if name == "" || len(name)+2 > maxName {
		return dst, false
	}
	start := 0
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '.' {
			if c := name[i]; c <= ' ' || c > '~' || c == '\\' {
				return dst, false
			}
			continue
		}
		label := name[start:i]
		if label == "" || len(label) > maxLabel {
			return dst, false
		}
		dst = append(dst, byte(len(label)))
		for _, c := range []byte(label) {
			dst = append(dst, lower(c))
		}
		start = i + 1
	}
	return append(dst, 0), true
}

// readName appends the lower-cased name that stands at msg[off:] and returns
// the offset after it. The name of a question has nothing before it to point
// at, so compression is malformed; next is then -1, as it is for a name that
// is cut off or too long.
func readName(dst, msg []byte, off int) (name []byte, next int) {
	for start := off; off < len(msg); {
		n := int(msg[off])
		if n > maxLabel || off+1+n > len(msg) || off+1+n-start >= maxName {
			if n == 0 && off+1-start == maxName {
				return append(dst, 0), off + 1
			}
			return dst, -1
		}
		dst = append(dst, byte(n))
		off++
		if n == 0 {
			return dst, off
		}
		for _, c := range msg[off : off+n] {
			dst = append(dst, lower(c))
		}
		off += n
	}
	return dst, -1
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// parent cuts the first label off a name that is not the root.
func parent(name string) string { return name[1+int(name[0]):] }

// below reports whether name equals zone or lies below it.
func below(name []byte, zone string) bool {
	rest := len(name) - len(zone)
	if rest < 0 || string(name[rest:]) != zone {
		return false
	}
	off := 0
	for off < rest { // a label may hold bytes that look like the zone
		off += 1 + int(name[off])
	}
	return off == rest
}
