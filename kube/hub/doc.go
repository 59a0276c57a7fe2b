// Package hub reads what should be from the objects of a hub's API server, and
// tells the hub what comes of them.
//
// A Hub never makes the daemon wait: what was accepted last is kept in the node's
// state and counts until the hub says otherwise, however long it is silent. An
// object that does not fit is refused by itself: what was accepted of it before
// goes on, and the object gets a condition.
//
// Run owns every goroutine; Merge and Tell are for one goroutine, the others for
// any.
package hub
