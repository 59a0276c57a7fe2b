package capture

import (
	"encoding/binary"
	"net/netip"

	"slicewire/overlay"
)

// look reads what filters ask for. Whatever pkt is, it reads no further.
func look(s overlay.Sight, pkt []byte) view {
	v := view{Sight: s, sport: -1, dport: -1}
	if len(pkt) < 20 {
		return v
	}
	var l4 []byte
	switch pkt[0] >> 4 {
	case 4:
		v.src, v.dst = netip.AddrFrom4([4]byte(pkt[12:16])), netip.AddrFrom4([4]byte(pkt[16:20]))
		v.proto = pkt[9]
		w := binary.BigEndian.Uint16(pkt[6:])
		v.fragment = w&0x3fff != 0
		if w&0x1fff != 0 {
			return v
		}
		l4 = pkt[min(int(pkt[0]&15)*4, len(pkt)):]
	case 6:
		if len(pkt) < 40 {
			return v
		}
		v.v6 = true
		v.src, v.dst = netip.AddrFrom16([16]byte(pkt[8:24])), netip.AddrFrom16([16]byte(pkt[24:40]))
		v.proto, l4 = pkt[6], pkt[40:]
		for range 8 {
			if v.proto != 0 && v.proto != 43 && v.proto != 44 && v.proto != 60 || len(l4) < 8 {
				break
			}
			size := (int(l4[1]) + 1) * 8
			if v.proto == 44 {
				size = 8
				w := binary.BigEndian.Uint16(l4[2:])
				v.fragment = w&0xfff9 != 0
				if w&0xfff8 != 0 {
					v.proto = l4[0]
					return v
				}
			}
			v.proto, l4 = l4[0], l4[min(size, len(l4)):]
		}
	default:
		return v
	}
	switch v.proto {
	case 6, 17, 132:
		if len(l4) >= 4 {
			v.sport, v.dport = int(binary.BigEndian.Uint16(l4)), int(binary.BigEndian.Uint16(l4[2:]))
		}
	}
	return v
}
