// Package join lets nodes into a mesh and renews their certificates: an issuer
// serves both over TLS 1.3, and nodes ask it.
//
// A newcomer holds a token. It names its issuer by the issuer's key, so that the
// newcomer speaks to that issuer or to nobody, and it holds a secret that never
// crosses the wire: the newcomer proves to know it with a MAC that is bound to
// the TLS session and to its request. The token's terms, for which node, which
// prefixes and until when, are the issuer's own note; a token is spent once, and
// that is on disk before the certificate leaves. A node that has a certificate
// shows it and gets a younger one of the same contents for the same key, from
// any issuer of its site.
//
// Everything that comes from a token or the network is hostile until it is
// parsed, every read is bounded in bytes and time, and connections are bounded
// in number and rate, for everybody and for each source.
//
// The package reads no file; the book of tokens is saved by a function that is
// handed in. A Server's Run owns its goroutines and its listener. Book and
// Server may be used concurrently. Byte slices passed in are not changed.
package join
