package gateway

import "encoding/binary"

// WireGuard's messages (whitepaper, section 5.4): a 32-bit little-endian type,
// then the sender's and the receiver's index as the type has them.
const (
	typeInitiation = 1
	typeResponse   = 2
	typeCookie     = 3
	typeData       = 4

	initiationBytes = 148
	responseBytes   = 92
	cookieBytes     = 64
	keepaliveBytes  = 32 // the shortest data message: header and tag of an empty packet

	initiationMAC1 = 116 // where mac1 starts in an initiation
	initiationMAC2 = 132
)

// messageType returns the type of an outer packet whose length agrees with it,
// otherwise 0.
func messageType(p []byte) uint32 {
	if len(p) < keepaliveBytes {
		return 0
	}
	t := binary.LittleEndian.Uint32(p)
	switch t {
	case typeData:
		return t
	case typeInitiation:
		if len(p) == initiationBytes {
			return t
		}
	case typeResponse:
		if len(p) == responseBytes {
			return t
		}
	case typeCookie:
		if len(p) == cookieBytes {
			return t
		}
	}
	return 0
}

// senderIndex is the index that the maker of an initiation or response chose
// for itself: answers carry it as their receiver index.
func senderIndex(p []byte) uint32 { return binary.LittleEndian.Uint32(p[4:]) }

// receiverIndex is the index by which the addressee knows the session of a
// response, cookie or data message.
func receiverIndex(p []byte, typ uint32) uint32 {
	if typ == typeResponse {
		return binary.LittleEndian.Uint32(p[8:])
	}
	return binary.LittleEndian.Uint32(p[4:])
}

// carriesPacket reports whether a message is data and not a keepalive.
func carriesPacket(p []byte) bool {
	return len(p) > keepaliveBytes && binary.LittleEndian.Uint32(p) == typeData
}
