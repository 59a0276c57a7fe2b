// Package manifest turns text into desired state: KubeSlice's own objects as
// YAML or JSON, and the one small file that only a node needs, become an
// overlay.Mesh and a list of problems, each with its file and line.
//
// Load and LoadNode read files; everything else is a pure function of its
// input. The package keeps no state, reads no clock, flag or environment,
// starts no goroutine and writes nothing. What it returns belongs to the
// caller; concurrent calls do not disturb each other.
//
// KubeSlice's objects are taken as its API server would take them: defaults
// filled in, unknown fields dropped (with a warning), enums and ranges
// enforced, then the rules of its admission webhooks. The node file is ours and
// strict: an unknown key is an error.
//
// Input is bounded (see the constants in parse.go), so that no file, however
// made, takes memory out of proportion to its size.
package manifest
