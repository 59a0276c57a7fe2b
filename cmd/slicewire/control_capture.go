package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"slicewire/api"
	"slicewire/router/capture"
)

// captured is what the control socket needs of the daemon for captures.
type captured interface {
	// Capture writes one to w until ctx ends, or as many packets as asked for are
	// written. ready is called once it runs, before anything is written.
	Capture(ctx context.Context, req api.CaptureRequest, w io.Writer, ready func(), flush func() error) (matched, lost uint64, err error)
}

// maxCaptures bounds what runs at a time, each with its queue.
const maxCaptures = 4

var errCaptures = fmt.Errorf("%d captures run already", maxCaptures)

// Trailers of a capture's answer.
const (
	trailerMatched = "Slicewire-Matched"
	trailerLost    = "Slicewire-Lost"
)

// capture serves one capture: for whoever may change things only, as it shows
// what is nobody else's business.
func (c *control) capture(w http.ResponseWriter, r *http.Request) {
	if !mayChange(r.Context()) {
		c.refuse(w, http.StatusForbidden, errors.New("capture is for root and for the user that the daemon runs as"))
		return
	}
	var req api.CaptureRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequestBody)).Decode(&req); err != nil {
		c.refuse(w, http.StatusBadRequest, fmt.Errorf("capture request: %w", err))
		return
	}
	runs := false
	matched, lost, err := c.captured.Capture(r.Context(), req, w, func() {
		runs = true
		w.Header().Set("Content-Type", "application/x-pcapng")
		w.Header().Set("Trailer", trailerMatched+", "+trailerLost)
		w.WriteHeader(http.StatusOK)
	}, http.NewResponseController(w).Flush)
	if err != nil && !runs {
		code := http.StatusBadRequest
		switch {
		case errors.Is(err, errNoSlice), errors.Is(err, errWhichSlice):
			code = http.StatusNotFound
		case errors.Is(err, errCaptures):
			code = http.StatusTooManyRequests
		}
		c.refuse(w, code, err)
		return
	}
	w.Header().Set(trailerMatched, strconv.FormatUint(matched, 10))
	w.Header().Set(trailerLost, strconv.FormatUint(lost, 10))
}

// Capture implements captured.
func (d *daemon) Capture(ctx context.Context, req api.CaptureRequest, w io.Writer, ready func(), flush func() error) (matched, lost uint64, err error) {
	if req.Slice != "" {
		if _, err := d.sliceFor(req.Slice); err != nil {
			return 0, 0, err
		}
	}
	conf := capture.Config{Slice: req.Slice, Filter: req.Filter, Snap: req.Snap, Count: req.Count}
	for _, name := range req.Points {
		p, err := capture.ParsePoint(name)
		if err != nil {
			return 0, 0, err
		}
		conf.Points = append(conf.Points, p)
	}
	s, err := capture.New(conf)
	if err != nil {
		return 0, 0, err
	}
	if !d.taps.Add(s, maxCaptures+d.tracer.tapped()) {
		return 0, 0, errCaptures
	}
	defer d.taps.Remove(s)
	ready()
	d.log.Info("capture begins", "slice", req.Slice, "points", s.Points(), "filter", req.Filter)
	err = s.Run(ctx, w, flush)
	matched, lost = s.Captured()
	d.log.Info("capture ends", "slice", req.Slice, "matched", matched, "lost", lost)
	return matched, lost, err
}
