// Package webhook puts slicewire's sidecar into pods as they are made, where
// their label asks for it: an API server shows them to it (mutating admission).
// What is put in is what `slicewire inject` puts into manifests, by the same
// function.
//
// A Server makes its own certificate, anew long before it ends, and writes it
// into the webhook's configuration, which others have made: it owns that one
// field. Several servers share it, each with its own certificate.
//
// The package keeps no keys outside of memory. Mutate and Bundle are pure.
package webhook
