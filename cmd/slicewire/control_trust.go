package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"slicewire/api"
)

// trust is what the control socket needs of the daemon to change who is trusted.
type trust interface {
	CreateToken(ctx context.Context, req api.TokenRequest) (api.TokenReply, error)
	Renew(ctx context.Context) (api.RenewReply, error)
	Revoke(ctx context.Context, req api.RevokeRequest) error
	RevokeToken(ctx context.Context, req api.TokenRevokeRequest) error
	Announce(ctx context.Context, req api.AnnounceRequest) (api.AnnounceReply, error)
	RotateGossipKey(ctx context.Context, req api.GossipKeyRequest) (api.GossipKeyReply, error)
}

func (c *control) handleTrust(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/certificates", func(w http.ResponseWriter, _ *http.Request) { c.answer(w, c.certificates()) })
	mux.HandleFunc("POST /v1/token", changing(c, "token create", func(ctx context.Context, req api.TokenRequest) (any, error) { return c.trust.CreateToken(ctx, req) }))
	mux.HandleFunc("POST /v1/token-revoke", changing(c, "token revoke", func(ctx context.Context, req api.TokenRevokeRequest) (any, error) {
		return struct{}{}, c.trust.RevokeToken(ctx, req)
	}))
	mux.HandleFunc("POST /v1/authority", changing(c, "ca announce", func(ctx context.Context, req api.AnnounceRequest) (any, error) { return c.trust.Announce(ctx, req) }))
	mux.HandleFunc("POST /v1/renew", changing(c, "cert renew", func(ctx context.Context, _ struct{}) (any, error) { return c.trust.Renew(ctx) }))
	mux.HandleFunc("POST /v1/gossip-key", changing(c, "gossip-key rotate", func(ctx context.Context, req api.GossipKeyRequest) (any, error) {
		return c.trust.RotateGossipKey(ctx, req)
	}))
	mux.HandleFunc("POST /v1/revoke", changing(c, "cert revoke", func(ctx context.Context, req api.RevokeRequest) (any, error) {
		return struct{}{}, c.trust.Revoke(ctx, req)
	}))
}

// changing serves a verb that changes something: it is for root and for the
// daemon's own user.
func changing[T any](c *control, verb string, do func(context.Context, T) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !mayChange(r.Context()) {
			c.refuse(w, http.StatusForbidden, errors.New(verb+" is for root and for the user that the daemon runs as"))
			return
		}
		var req T
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequestBody)).Decode(&req); err != nil {
			c.refuse(w, http.StatusBadRequest, fmt.Errorf("%s: %w", verb, err))
			return
		}
		out, err := do(r.Context(), req)
		if err != nil {
			c.refuse(w, http.StatusUnprocessableEntity, err)
			return
		}
		c.answer(w, out)
	}
}

// call asks the daemon and reads its answer.
func call[T any](ctx context.Context, c *client, method, verb string, req any) (out T, err error) {
	body, err := c.do(ctx, method, verb, req)
	if err != nil {
		return out, err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(&out); err != nil {
		return out, fmt.Errorf("read the daemon's answer: %w", err)
	}
	return out, nil
}
