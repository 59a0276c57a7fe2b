package join

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"slicewire/overlay"
)

// A token as text is tokenPrefix and the base64url of its bytes. Integers are
// big-endian; str is a length of one byte and as many bytes:
//
//	token = 8 bytes id, 16 bytes secret, 32 bytes KeySum of the issuer
//	        32 bytes KeySum of the mesh's authority
//	        i64 seconds since 1970            expires
//	        str mesh, str site, str node
//	        u8 n, n × str slice               sorted
//	        u8 n (at least 1), n × str host:port
//	        4 bytes                           beginning of the SHA-256 of all before
//
// The sum at the end finds slips of the hand, not forgery: what counts is the
// issuer's note, and the proof covers every byte of the token.
const tokenPrefix = "slicewire2."

// Bounds of a token.
const (
	maxTokenText  = 8 << 10
	maxSlices     = 64
	maxAddresses  = 8
	maxAddress    = 255
	tokenSumBytes = 4
	maxUnixTime   = 253402300799 // the last second of year 9999
)

// ErrToken says that a text is not a token, or not a whole one.
var ErrToken = errors.New("this is not a whole join token: copy it as it was printed, from " + tokenPrefix + " to its end")

// A Token lets one node in, once. Whoever has it can be that node until it is
// spent: it is to be handled like a password.
type Token struct {
	ID        [8]byte
	Secret    [16]byte
	Issuer    [32]byte  // pki.KeySum of the key that the issuer shows
	Root      [32]byte  // pki.KeySum of the authority that the issuer hangs on
	Expires   time.Time // whole seconds
	Mesh      string
	Node      overlay.NodeID
	Slices    []string // sorted; for people to see, the issuer knows what it grants
	Addresses []string // host:port of the issuer, in the order to try
}

// NewToken fills in a token's id and secret.
func NewToken(t Token) (Token, error) {
	if _, err := rand.Read(t.ID[:]); err != nil {
		return t, err
	}
	if _, err := rand.Read(t.Secret[:]); err != nil {
		return t, err
	}
	t.Expires = t.Expires.UTC().Truncate(time.Second)
	t.Slices = slices.Clone(t.Slices)
	slices.Sort(t.Slices)
	return t, t.check()
}

// Name is how a token is spoken of. It is no secret.
func (t *Token) Name() string { return hex.EncodeToString(t.ID[:]) }

func (t *Token) check() error {
	switch {
	case !overlay.ValidDNSName(t.Mesh) || len(t.Mesh) > 255:
		return fmt.Errorf("join token: mesh name %q", t.Mesh)
	case !overlay.ValidLabel(t.Node.Site) || !overlay.ValidLabel(t.Node.Node):
		return fmt.Errorf("join token: node %q: want two DNS labels", t.Node)
	case t.Expires.Unix() <= 0 || t.Expires.Unix() > maxUnixTime:
		return fmt.Errorf("join token: expires %v", t.Expires)
	case len(t.Slices) > maxSlices:
		return fmt.Errorf("join token: %d slices, at most %d", len(t.Slices), maxSlices)
	case len(t.Addresses) == 0 || len(t.Addresses) > maxAddresses:
		return fmt.Errorf("join token: %d addresses, want 1 to %d", len(t.Addresses), maxAddresses)
	}
	for i, s := range t.Slices {
		if !overlay.ValidLabel(s) || i > 0 && t.Slices[i-1] >= s {
			return fmt.Errorf("join token: slice %q", s)
		}
	}
	for _, a := range t.Addresses {
		if err := checkAddress(a); err != nil {
			return err
		}
	}
	return nil
}

func checkAddress(a string) error {
	host, port, err := net.SplitHostPort(a)
	n, perr := strconv.ParseUint(port, 10, 16)
	plain := !strings.ContainsFunc(a, func(r rune) bool { return r <= ' ' || r > '~' })
	if err != nil || perr != nil || n == 0 || host == "" || len(a) > maxAddress || !plain {
		return fmt.Errorf("join token: address %q: want host:port", a)
	}
	return nil
}

// bytes is what Text encodes and a proof covers.
func (t *Token) bytes() []byte {
	b := make([]byte, 0, 256)
	str := func(s string) { b = append(append(b, byte(len(s))), s...) }
	list := func(l []string) {
		b = append(b, byte(len(l)))
		for _, s := range l {
			str(s)
		}
	}
	b = append(b, t.ID[:]...)
	b = append(b, t.Secret[:]...)
	b = append(b, t.Issuer[:]...)
	b = append(b, t.Root[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(t.Expires.Unix()))
	str(t.Mesh)
	str(t.Node.Site)
	str(t.Node.Node)
	list(t.Slices)
	list(t.Addresses)
	return b
}

// Text returns the token as people pass it on. The token is one that NewToken or
// ParseToken returned.
func (t *Token) Text() string {
	b := t.bytes()
	sum := sha256.Sum256(b)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(append(b, sum[:tokenSumBytes]...))
}

// ParseToken reads exactly what Text writes, but for white space around it.
func ParseToken(text string) (Token, error) {
	text = strings.TrimSpace(text)
	code, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok || len(text) > maxTokenText {
		return Token{}, ErrToken
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(code)
	if err != nil || len(b) < tokenSumBytes {
		return Token{}, ErrToken
	}
	b, sum := b[:len(b)-tokenSumBytes], b[len(b)-tokenSumBytes:]
	if want := sha256.Sum256(b); !bytes.Equal(sum, want[:tokenSumBytes]) {
		return Token{}, ErrToken
	}
	t, ok := decodeToken(b)
	if !ok {
		return Token{}, ErrToken
	}
	if err := t.check(); err != nil {
		return Token{}, err
	}
	if !bytes.Equal(t.bytes(), b) {
		return Token{}, ErrToken
	}
	return t, nil
}

func decodeToken(b []byte) (t Token, ok bool) {
	ok = true
	take := func(n int) []byte {
		if n > len(b) {
			ok = false
			return make([]byte, n)
		}
		out := b[:n]
		b = b[n:]
		return out
	}
	str := func() string { return string(take(int(take(1)[0]))) }
	list := func() (l []string) {
		for n := take(1)[0]; n > 0 && ok; n-- {
			l = append(l, str())
		}
		return l
	}
	copy(t.ID[:], take(len(t.ID)))
	copy(t.Secret[:], take(len(t.Secret)))
	copy(t.Issuer[:], take(len(t.Issuer)))
	copy(t.Root[:], take(len(t.Root)))
	seconds := binary.BigEndian.Uint64(take(8))
	t.Mesh = str()
	t.Node = overlay.NodeID{Site: str(), Node: str()}
	t.Slices = list()
	t.Addresses = list()
	if seconds > maxUnixTime {
		return t, false
	}
	t.Expires = time.Unix(int64(seconds), 0).UTC()
	return t, ok && len(b) == 0
}
