package apitest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// Compact has etcd forget all revisions but its latest, behind the API server's
// back: that stands still while etcd starts anew, goes on and compacts. The
// server's own watches of etcd, and so what it remembers for those of its
// clients, begin anew: a client that goes on from before gets 410.
func (s *Server) Compact() error {
	s.Freeze()
	defer s.Thaw()
	s.etcdProc.kill()
	if err := s.startEtcd(); err != nil {
		return err
	}
	revision := ""
	for range 10 { // what nobody watches: the revision goes on nevertheless
		r, err := s.askEtcd("put", map[string]any{"key": []byte("/elsewhere"), "value": []byte("x")})
		if err != nil {
			return err
		}
		revision = r
	}
	_, err := s.askEtcd("compaction", map[string]any{"revision": revision, "physical": true})
	return err
}

var etcdClient = &http.Client{Timeout: 5 * time.Second}

// askEtcd has etcd do something to its keys, as soon as it answers. It returns the
// revision after.
func (s *Server) askEtcd(what string, body any) (revision string, err error) {
	text, err := json.Marshal(body)
	if err != nil {
		return "", err
	}
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var answer struct {
			Header struct {
				Revision string `json:"revision"`
			} `json:"header"`
		}
		var r *http.Response
		if r, err = etcdClient.Post(s.etcd+"/v3/kv/"+what, "application/json", bytes.NewReader(text)); err != nil {
			continue
		}
		if r.StatusCode != http.StatusOK {
			err = fmt.Errorf("etcd: %s: %s", what, r.Status)
		} else {
			err = json.NewDecoder(r.Body).Decode(&answer)
		}
		_ = r.Body.Close() // it was read
		if err == nil {
			return answer.Header.Revision, nil
		}
		if s.etcdProc.over() {
			return "", fmt.Errorf("etcd ended: %w", err)
		}
	}
	return "", err
}
