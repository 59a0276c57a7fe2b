package api

import "time"

// TokenRequest asks the daemon of an issuing gateway for a join token.
type TokenRequest struct {
	Site      string        `json:"site"` // empty: the daemon's own
	Node      string        `json:"node"`
	Slices    []string      `json:"slices"` // empty: every slice of the site that the issuer may grant
	Gateway   bool          `json:"gateway"`
	Index     int           `json:"index"` // negative: the first that no node of the site has
	TTL       time.Duration `json:"ttl"`
	Addresses []string      `json:"addresses"` // host:port; empty: where the daemon tells others that it certifies
}

// TokenReply is a join token and what it lets in.
type TokenReply struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Token      string    `json:"token"`
	ID         string    `json:"id"`
	Site       string    `json:"site"`
	Node       string    `json:"node"`
	Gateway    bool      `json:"gateway"`
	Index      int       `json:"index"`
	Slices     []string  `json:"slices"`
	Expires    time.Time `json:"expires"`
	Addresses  []string  `json:"addresses"`
}

// CertificateList is what a node knows of the mesh's certificates.
type CertificateList struct {
	APIVersion   string              `json:"apiVersion"`
	Kind         string              `json:"kind"`
	Authorities  []AuthorityStatus   `json:"authorities"` // the newest first
	Certificates []CertificateStatus `json:"certificates"`
	Revocations  []RevocationStatus  `json:"revocations"`
	Tokens       []TokenStatus       `json:"tokens"` // of this node, if it certifies others
}

// CertificateStatus is one certificate of those that stand behind known records.
type CertificateStatus struct {
	Site      string    `json:"site"`
	Node      string    `json:"node"`
	Gateway   bool      `json:"gateway"`
	Index     int       `json:"index"`
	Slices    []string  `json:"slices"`
	Enrolled  time.Time `json:"enrolled"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	Key       string    `json:"key"`       // SHA-256 of the public key
	Issuer    string    `json:"issuer"`    // that of the key that signed it; empty: the mesh's authority
	Authority string    `json:"authority"` // that of the mesh's authority on which it hangs
	Own       bool      `json:"own"`       // this node's
}

// AuthorityStatus is one of the mesh's authorities.
type AuthorityStatus struct {
	Key      string     `json:"key"` // SHA-256 of the public key
	NotAfter time.Time  `json:"notAfter"`
	Retires  *time.Time `json:"retires,omitempty"` // from then on it is trusted no longer
	Retired  bool       `json:"retired"`
}

// AnnounceRequest carries what the mesh's next authority says of itself.
type AnnounceRequest struct {
	Statement []byte `json:"statement"`
}

// AnnounceReply lists the authorities that the node trusts or has trusted.
type AnnounceReply struct {
	APIVersion  string            `json:"apiVersion"`
	Kind        string            `json:"kind"`
	Authorities []AuthorityStatus `json:"authorities"`
}

// TokenRevokeRequest names a join token that is to be void.
type TokenRevokeRequest struct {
	ID string `json:"id"`
}

// RevocationStatus is one revocation.
type RevocationStatus struct {
	What     string     `json:"what"`            // site/node, or the SHA-256 of a key
	Until    *time.Time `json:"until,omitempty"` // of a node: those enrolled up to then are void
	By       string     `json:"by"`
	NotAfter time.Time  `json:"notAfter"`
}

// TokenStatus is a join token without its secret.
type TokenStatus struct {
	ID      string     `json:"id"`
	Site    string     `json:"site"`
	Node    string     `json:"node"`
	Expires time.Time  `json:"expires"`
	Used    *time.Time `json:"used,omitempty"`
}

// RenewReply is the certificate that a renewal gave.
type RenewReply struct {
	NotAfter time.Time `json:"notAfter"`
}

// GossipKeyRequest has the key of the mesh's gossip changed.
type GossipKeyRequest struct {
	Within time.Duration `json:"within"` // how long all of it may take
}

// GossipKeyReply says when.
type GossipKeyReply struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Version    uint64    `json:"version"`
	UseAt      time.Time `json:"useAt"`  // from then on nodes send with it
	DropAt     time.Time `json:"dropAt"` // from then on they refuse the one before
}

// RevokeRequest names a node to revoke, or carries a revocation that was signed
// elsewhere.
type RevokeRequest struct {
	Site       string `json:"site,omitempty"`
	Node       string `json:"node,omitempty"`
	Revocation []byte `json:"revocation,omitempty"`
}
