package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"slicewire/overlay"
	"slicewire/overlay/manifest"
	"slicewire/overlay/pki"
	"slicewire/overlay/pki/join"
	"slicewire/overlay/pki/podtoken"
	"slicewire/statedir"
)

// Where a pod finds its token, and how long it waits before it asks again.
const (
	podTokenFile = "/var/run/secrets/slicewire/token"
	podAskFirst  = 500 * time.Millisecond
	podAskMost   = 10 * time.Second
)

// A podJoining is one `slicewire join --kubernetes`.
type podJoining struct {
	joining
	on        bool
	gateway   bool
	issuers   []string
	config    string // node file; it says site, node and state folder
	listed    string // file of issuers
	seed      string // folder with files of a state folder
	authority string // file
	token     string // file; the kubelet renews it
	wait      time.Duration
}

func (p *podJoining) flags(f *pflag.FlagSet) {
	f.BoolVar(&p.on, "kubernetes", false, "join as a pod, with the token of its service account")
	f.StringSliceVar(&p.issuers, "issuer", nil, "host:port of a gateway that lets pods in; several are tried in turn (with --kubernetes)")
	f.StringVar(&p.listed, "issuers", "", "file with a host:port of such a gateway on each line (with --kubernetes)")
	f.StringVar(&p.config, "config", "", "node file that says site, node and state folder (with --kubernetes)")
	f.StringVar(&p.seed, "seed", "", "folder with files for the state folder, such as a mounted Secret with an identity; those that are there already stay (with --kubernetes)")
	f.StringVar(&p.authority, "authority", "", "file with the certificate of the mesh's authority, which is no secret (with --kubernetes)")
	f.StringVar(&p.token, "token-file", podTokenFile, "the pod's token, for the audience that the issuer wants (with --kubernetes)")
	f.BoolVar(&p.gateway, "gateway", false, "the pod is a gateway: its node has the pod's name (with --kubernetes)")
	f.DurationVar(&p.wait, "wait", 0, "how long to go on asking; 0: until it is let in (with --kubernetes)")
}

// run joins, or finds that the pod has joined.
func (p *podJoining) run(ctx context.Context, stdout, stderr io.Writer) error {
	if err := p.prepare(); err != nil {
		return err
	}
	if err := p.plant(); err != nil {
		return err
	}
	text, err := os.ReadFile(p.authority)
	if err != nil {
		return err
	}
	roots, err := pki.ParseRoots(text)
	if err != nil {
		return fmt.Errorf("%s: %w", p.authority, err)
	}
	p.mesh = roots.Mesh()
	verifier, err := pki.NewVerifier(p.mesh, text)
	if err != nil {
		return fmt.Errorf("%s: %w", p.authority, err)
	}
	if id, err := loadIdentity(p.state, p.mesh, p.wall); err == nil && !p.replace && id.authority().ID == p.want {
		_, err = fmt.Fprintf(stdout, "%v of mesh %s has joined before, certified until %s\n", p.want, p.mesh, id.authority().NotAfter.UTC().Format(time.RFC3339))
		return err
	}
	if len(p.issuers) == 0 {
		return &exitError{exitUsage, errors.New("--kubernetes needs --issuer or --issuers: the pod has no identity yet")}
	}
	p.replace = true
	p.pins = func(got *pki.Roots, root [32]byte) error {
		if got.Mesh() != p.mesh || !leads(roots, got, root) {
			return fmt.Errorf("the certificate hangs on authority %x of mesh %s, not on that of %s or one after it", root[:8], got.Mesh(), p.authority)
		}
		return nil
	}
	p.admit = func(ctx context.Context, request []byte) (join.Admission, error) {
		bearer, err := os.ReadFile(p.token)
		if err != nil {
			return join.Admission{}, err
		}
		return join.JoinPod(ctx, join.AskPod{
			Addresses: p.issuers, Verifier: verifier, Want: p.want, Bearer: string(bytes.TrimSpace(bearer)), Request: request, Now: p.wall(),
		})
	}
	a, err := p.again(ctx, stderr)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%v of mesh %s, certified until %s, on %d slices\n", a.ID, a.Mesh, a.NotAfter.UTC().Format(time.RFC3339), len(a.Grants))
	return err
}

// prepare works out who the pod is to be.
func (p *podJoining) prepare() error {
	if p.config != "" {
		file, problems := manifest.LoadNodeIn(p.config, nodeVariable)
		for _, x := range problems {
			if x.Severity == manifest.Error {
				return errors.New(x.String())
			}
		}
		p.want = overlay.NodeID{Site: cmp.Or(p.want.Site, file.Site), Node: cmp.Or(p.want.Node, file.Node)}
		if file.State != "" {
			p.state = statedir.Dir(file.State)
		}
	}
	if p.listed != "" {
		text, err := os.ReadFile(p.listed)
		if err != nil {
			return err
		}
		p.issuers = append(p.issuers, strings.Fields(string(text))...)
	}
	if p.want.Node == "" {
		namespace, pod := os.Getenv("POD_NAMESPACE"), os.Getenv("POD_NAME")
		if namespace == "" || pod == "" {
			return &exitError{exitUsage, errors.New("the pod's name is not known: give --node or --config, or POD_NAME and POD_NAMESPACE in the environment")}
		}
		p.want.Node = podNode(p.gateway, namespace, pod)
	}
	if p.authority == "" || p.want.Site == "" {
		return &exitError{exitUsage, errors.New("--kubernetes needs --authority, and --site or --config")}
	}
	return nil
}

// plant copies what a Secret has for the state folder.
func (p *podJoining) plant() error {
	if p.seed == "" {
		return nil
	}
	if err := p.state.Create(); err != nil {
		return err
	}
	files, err := os.ReadDir(p.seed)
	if err != nil {
		return err
	}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), ".") { // how the kubelet changes all at once
			continue
		}
		if _, err := os.Lstat(p.state.Path(f.Name())); err == nil {
			continue
		}
		data, err := os.ReadFile(filepath.Join(p.seed, f.Name()))
		if err != nil {
			return err
		}
		if err := p.state.Write(f.Name(), data); err != nil {
			return err
		}
	}
	return nil
}

// leads reports whether root is one of the authorities that are trusted here, or
// came after one of them by what an issuer has shown.
func leads(trusted, got *pki.Roots, root [32]byte) bool {
	return trusted.Leads(root, trusted.Newest()) || got.Leads(trusted.Newest(), root)
}

// again asks until the pod is let in or the time is over. Also a refusal may
// change: the issuer may not know the cluster yet. What is said again and again is
// said once.
func (p *podJoining) again(ctx context.Context, stderr io.Writer) (overlay.Authority, error) {
	if p.wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.wait)
		defer cancel()
	}
	said := ""
	for pause := podAskFirst; ; pause = min(2*pause, podAskMost) {
		a, err := p.joining.run(ctx)
		if err == nil {
			return a, nil
		}
		if text := err.Error(); text != said && ctx.Err() == nil {
			said = text
			fmt.Fprintln(stderr, "slicewire: not joined yet, asking again:", text)
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return a, errors.New(cmp.Or(said, err.Error()))
		}
	}
}

// podNode is how a pod is called as a node. Gateways are of one service account
// of one namespace, where no two pods have one name.
func podNode(gateway bool, namespace, pod string) string {
	if gateway {
		return pod
	}
	return podtoken.NodeName(namespace, pod)
}
