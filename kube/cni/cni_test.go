package cni

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

func TestASliceIsChosen(t *testing.T) {
	all := []Slice{{Name: "red", Namespaces: []string{"shop", "both"}, Allowed: []string{"tools"}}, {Name: "blue", Namespaces: []string{"both"}}, {Name: "open"}}
	for _, c := range []struct {
		name, conf, annotation, namespace string
		known                             bool
		slice, space                      string
		code                              uint
	}{
		{"the namespace's", "", "", "shop", true, "red", "shop", 0},
		{"none for a namespace that is on none", "", "", "else", true, "", "", 0},
		{"none for one that is only let in", "", "", "tools", true, "", "", 0},
		{"one that is let in by its own choice", "", "red", "tools", true, "red", "tools", 0},
		{"of two, one has to be chosen", "", "", "both", true, "", "", codeAmbiguous},
		{"of two, one is chosen", "", "blue", "both", true, "blue", "both", 0},
		{"an annotation opens nothing", "", "red", "else", true, "", "", codeNotAllowed},
		{"nor a slice without namespaces", "", "open", "else", true, "", "", codeNotAllowed},
		{"the administrator opens it", "open", "", "else", true, "open", "", 0},
		{"but not to a namespace that it does not have", "red", "", "else", true, "", "", codeNotAllowed},
		{"what is configured holds against an annotation", "red", "blue", "both", true, "red", "both", 0},
		{"without Kubernetes it is configured", "red", "", "", true, "red", "", 0},
		{"or it cannot be", "", "", "", true, "", "", types.ErrInvalidNetworkConfig},
		{"a slice may come later", "", "green", "shop", true, "", "", types.ErrTryAgainLater},
		{"the cluster's own pods are on none", "", "", "kube-system", false, "", "", 0},
	} {
		conf := &Conf{Slice: c.conf, Exclude: []string{"kube-system"}}
		conf.RuntimeConfig.Annotations = map[string]string{AnnotationSlice: c.annotation}
		got, err := choose(conf, pod{namespace: c.namespace}, all, c.known)
		var coded *types.Error
		if errors.As(err, &coded) != (c.code != 0) || coded != nil && coded.Code != c.code || got != (choice{c.slice, c.space}) {
			t.Errorf("%s: %+v, %v; want %q in %q, code %d", c.name, got, err, c.slice, c.space, c.code)
		}
	}
	if _, err := choose(new(Conf), pod{namespace: "shop"}, nil, false); !errors.Is(err, errUnknown) {
		t.Errorf("nothing is known: %v", err)
	}
}

func TestStatusSaysWhatIsWrong(t *testing.T) {
	up := State{Slices: []Slice{{Name: "red"}}}
	for _, c := range []struct {
		name   string
		conf   Conf
		state  State
		fault  error
		living int
		code   uint
	}{
		{"all is well", Conf{}, up, nil, 3, 0},
		{"no daemon, nobody is hurt", Conf{}, State{}, ErrAway, 0, types.ErrPluginNotAvailable},
		{"no daemon, and pods without their slices", Conf{}, State{}, ErrAway, 1, types.ErrLimitedConnectivity},
		{"cordoned", Conf{}, State{Slices: up.Slices, Cordoned: true}, nil, 1, types.ErrPluginNotAvailable},
		{"no slices yet", Conf{}, State{}, nil, 1, types.ErrPluginNotAvailable},
		{"not the slice", Conf{Slice: "blue"}, up, nil, 1, types.ErrPluginNotAvailable},
	} {
		err := readiness(&c.conf, c.state, c.fault, c.living)
		var coded *types.Error
		if errors.As(err, &coded) != (c.code != 0) || coded != nil && coded.Code != c.code {
			t.Errorf("%s: %v, want code %d", c.name, err, c.code)
		}
	}
}

const single = `{"cniVersion":"0.4.0","name":"pods","type":"ptp","mtu":1500}`

func TestThePluginIsChainedOnceAndTakenOut(t *testing.T) {
	dir := t.TempDir()
	if _, err := Install(dir, nil); !errors.Is(err, ErrNoNetwork) {
		t.Errorf("without a network: %v", err)
	}
	put := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("10-a.conf", single)
	put("20-b.conflist", `{"name":"b","plugins":[{"type":"x"}]}`)
	plugin := map[string]any{"socket": "/s"}
	for _, want := range []bool{true, false} {
		if wrote, err := Install(dir, plugin); err != nil || wrote != want {
			t.Errorf("wrote %v, %v; want %v", wrote, err, want)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "10-a.conflist"))
	if err != nil || strings.Count(string(text), Type) != 1 || !strings.Contains(string(text), `"mtu": 1500`) || !strings.Contains(string(text), `"name": "pods"`) {
		t.Errorf("chained: %s, %v", text, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "10-a.conf")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the configuration that was is still there: %v", err)
	}
	if wrote, err := Install(dir, map[string]any{"socket": "/t"}); err != nil || !wrote {
		t.Errorf("another socket: %v, %v", wrote, err)
	}
	if err := Uninstall(dir); err != nil {
		t.Fatal(err)
	}
	text, err = os.ReadFile(filepath.Join(dir, "10-a.conflist"))
	if err != nil || strings.Contains(string(text), Type) || !strings.Contains(string(text), `"ptp"`) {
		t.Errorf("taken out: %s, %v", text, err)
	}
	for _, bad := range []string{"[", "{}", `{"plugins":[]}`, `{"plugins":7}`} {
		if out, err := Chain([]byte(bad), nil); err == nil {
			t.Errorf("%s is taken: %s", bad, out)
		}
	}
}

func TestARecordIsOnesAtATime(t *testing.T) {
	path := recordPath(t.TempDir(), "net", "c", "eth0")
	if _, err := lockRecord(path, false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	r, err := lockRecord(path, true)
	if err != nil {
		t.Fatal(err)
	}
	want := Record{Container: "c", Slice: "red", Address: netip.MustParseAddr("10.0.0.1")}
	if err := errors.Join(r.write(Record{Container: strings.Repeat("long", 100)}), r.write(want)); err != nil {
		t.Fatal(err)
	}
	if got, err := r.read(); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	second := make(chan error)
	go func() {
		x, err := lockRecord(path, false) // waits, and then it is gone
		if err == nil {
			x.Close()
		}
		second <- err
	}()
	if err := errors.Join(r.remove(), r.Close()); err != nil {
		t.Fatal(err)
	}
	if err := <-second; !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after its removal: %v", err)
	}
}

// A stuck daemon detaches nothing: what is not detached is not forgotten.
type stuck struct{ Daemon }

func (stuck) Detach(context.Context, string, string, string) error { return errors.New("stuck") }

func TestWhatIsNotDetachedIsNotForgotten(t *testing.T) {
	path := recordPath(t.TempDir(), "net", "c", "eth0")
	r, err := lockRecord(path, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.write(Record{Device: "sw0"}), r.Close()); err != nil {
		t.Fatal(err)
	}
	var coded *types.Error
	if err := forget(t.Context(), stuck{}, path, nil); !errors.As(err, &coded) || coded.Code != types.ErrTryAgainLater {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func FuzzConf(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.1.0","name":"n","slice":"red","prevResult":{"cniVersion":"1.1.0"}}`))
	f.Add([]byte(single))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := parseConf(b); err == nil && !strings.HasPrefix(recordPath(c.State, c.Name, "c", "eth0"), filepath.Clean(c.State)) {
			t.Errorf("records outside of the state folder: %s", b)
		}
		_, _ = Chain(b, nil)
	})
}
