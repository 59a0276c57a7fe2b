package pki

import "fmt"

// MeshOf returns the name of the mesh that an authority's certificate (PEM) is
// for. It says nothing about whether to trust it.
func MeshOf(rootPEM []byte) (string, error) {
	chain, err := decodeChain(rootPEM)
	if err != nil {
		return "", err
	}
	if len(chain) != 1 {
		return "", fmt.Errorf("authority: %d certificates instead of one", len(chain))
	}
	_, a, err := parseAuthorityCert(chain[0])
	return a.Mesh, err
}
