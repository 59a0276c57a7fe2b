package gateway

import (
	"crypto/subtle"
	"hash"

	"golang.org/x/crypto/blake2s"
)

// A mac1 tells whether a handshake message was made for one public key. Its
// state is reused, so one goroutine at a time may use it.
type mac1 struct {
	h   hash.Hash
	sum [blake2s.Size128]byte
}

func newMAC1(public [32]byte) *mac1 {
	key := blake2s.Sum256(append([]byte("mac1----"), public[:]...))
	h, err := blake2s.New128(key[:])
	if err != nil {
		panic("gateway: BLAKE2s refuses a 32-byte key: " + err.Error())
	}
	return &mac1{h: h}
}

// matches checks the mac1 field of msg, a whole initiation.
func (m *mac1) matches(msg []byte) bool {
	m.h.Reset()
	m.h.Write(msg[:initiationMAC1])
	got := m.h.Sum(m.sum[:0])
	return subtle.ConstantTimeCompare(got, msg[initiationMAC1:initiationMAC2]) == 1
}
