// Package pki makes and checks the identities of a mesh: its certificate
// authority, the certificates that say what a node may announce, and signatures
// made with a node's key. Everything is ed25519 and X.509 (RFC 5280, RFC 8410).
//
// A node certificate names its holder in one URI, slicewire://mesh/site/node,
// and carries in a private extension whether it is a gateway, its index within
// the site, and the prefixes granted on each slice. It holds no other name.
// The holder's private key never leaves the node that made it: a certificate is
// issued for a request, of which only the public key counts.
//
// The authority's key may stay offline: issuers, which it certifies, sign nodes
// of their sites for what lies inside their grants, and every verifier holds them
// to it. What is void is told by revocations, which name a node or a key.
// An authority is replaced by one that it has certified, see Succession; Roots
// are those that a node trusts.
//
// The package reads no file and no clock, and starts no goroutine. Byte slices
// passed in are not kept and those returned belong to the caller, except where
// said otherwise. A Verifier and a Clock may be used concurrently; a CA, an Issuer and an Identity are
// not changed after they are made.
package pki
