package main

// exitError ends the program with a code. With a nil err everything worth
// saying has been printed.
type exitError struct {
	code int
	err  error
}

// Error returns the text of the error inside, or "".
func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

// Unwrap returns the error inside.
func (e *exitError) Unwrap() error { return e.err }
