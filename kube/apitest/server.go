package apitest

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"slicewire/kube"
)

// A Server is an API server with an etcd of its own. Its methods are for one
// goroutine.
type Server struct {
	Config *rest.Config // of an administrator; not to be changed
	Audit  string       // the file in which the server writes every request
	Flags  []string     // more of them, for StartAPI

	dir, bin       string
	apiPort        string
	etcd, etcdPeer string
	etcdProc       *process
	apiProc        *process
	etcdData       string
}

// startTimeout bounds how long a server may take until it is ready: three seconds
// on a quiet machine.
const startTimeout = 2 * time.Minute

// Main runs the tests of a package with a server, which use is told of.
func Main(m *testing.M, use func(*Server)) int {
	bin, err := programs()
	if err != nil {
		if os.Getenv("CI") != "" {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Fprintln(os.Stderr, "without an API server:", err)
		return m.Run()
	}
	s, err := Start(bin)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer s.Stop()
	use(s)
	return m.Run()
}

// Serve starts a server for one test.
func Serve(t *testing.T) *Server {
	t.Helper()
	bin, err := programs()
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	s, err := Start(bin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// Kubeconfig writes a file with which a program is the administrator.
func (s *Server) Kubeconfig(path string) error {
	encode := base64.StdEncoding.EncodeToString
	return os.WriteFile(path, fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: default
clusters: [{name: default, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: admin, user: {client-certificate-data: %s, client-key-data: %s}}]
contexts: [{name: default, context: {cluster: default, user: admin}}]
`, s.Config.Host, encode(s.Config.CAData), encode(s.Config.CertData), encode(s.Config.KeyData)), 0o600)
}

// As returns a client that is taken for a user, with the rights of that user.
func (s *Server) As(user string, groups ...string) (*kube.Client, error) {
	access := rest.CopyConfig(s.Config)
	access.Impersonate.UserName, access.Impersonate.Groups = user, groups
	return kube.NewClient(access, "test")
}

// programs returns the folder with etcd and kube-apiserver.
func programs() (string, error) {
	dirs := []string{os.Getenv("SLICEWIRE_KUBE_BIN")}
	if cache, err := os.UserCacheDir(); err == nil {
		found, _ := filepath.Glob(filepath.Join(cache, "slicewire-testcluster", "*"))
		dirs = append(dirs, found...)
	}
	for _, d := range dirs {
		if d == "" {
			continue
		}
		_, err1 := os.Stat(filepath.Join(d, "etcd"))
		_, err2 := os.Stat(filepath.Join(d, "kube-apiserver"))
		if err1 == nil && err2 == nil {
			return d, nil
		}
	}
	return "", errors.New("etcd and kube-apiserver are in no cache: start a cluster once (go -C kube/testcluster run . up), or name their folder in SLICEWIRE_KUBE_BIN")
}

// Start starts a server of the programs in bin and waits until it is ready.
func Start(bin string) (*Server, error) {
	dir, err := os.MkdirTemp("", "slicewire-api-")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, bin: bin, Audit: filepath.Join(dir, "audit.log"), etcdData: filepath.Join(dir, "etcd")}
	if s.Config, err = certify(dir); err == nil {
		err = s.begin()
	}
	if err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

// begin picks ports and starts both programs, anew when somebody else was faster
// to take a port.
func (s *Server) begin() error {
	var err error
	for range 5 {
		var ports [3]string
		if ports, err = freePorts(); err != nil {
			return err
		}
		s.etcd, s.etcdPeer, s.apiPort = "http://127.0.0.1:"+ports[0], "http://127.0.0.1:"+ports[1], ports[2]
		s.Config.Host = "https://127.0.0.1:" + s.apiPort
		if err = s.startEtcd(); err == nil {
			if err = s.StartAPI(); err == nil {
				return nil
			}
		}
		s.halt()
	}
	return err
}

func freePorts() (out [3]string, err error) {
	for i := range out {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return out, err
		}
		defer l.Close() // together, so that they differ
		_, out[i], _ = net.SplitHostPort(l.Addr().String())
	}
	return out, nil
}

func (s *Server) startEtcd() (err error) {
	s.etcdProc, err = start(filepath.Join(s.dir, "etcd.log"), filepath.Join(s.bin, "etcd"), "--name=e", "--data-dir="+s.etcdData, "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+s.etcd, "--advertise-client-urls="+s.etcd, "--listen-peer-urls="+s.etcdPeer,
		"--initial-advertise-peer-urls="+s.etcdPeer, "--initial-cluster=e="+s.etcdPeer)
	return err
}

// StartAPI starts the API server and waits until it is ready.
func (s *Server) StartAPI() (err error) {
	f := func(n string) string { return filepath.Join(s.dir, n) }
	args := []string{
		"--etcd-servers=" + s.etcd, "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--secure-port=" + s.apiPort,
		"--cert-dir=" + s.dir, "--client-ca-file=" + f("ca.crt"), "--tls-cert-file=" + f("apiserver.crt"), "--tls-private-key-file=" + f("apiserver.key"),
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + f("apiserver.crt"), "--service-account-signing-key-file=" + f("apiserver.key"),
		"--authorization-mode=RBAC", "--allow-privileged", "--service-cluster-ip-range=10.96.0.0/16", "--endpoint-reconciler-type=none",
		"--disable-admission-plugins=ServiceAccount", "--audit-policy-file=" + f("audit.yaml"), "--audit-log-path=" + s.Audit, "--audit-log-mode=blocking",
	}
	s.apiProc, err = start(f("apiserver.log"), filepath.Join(s.bin, "kube-apiserver"), append(args, s.Flags...)...)
	if err != nil {
		return err
	}
	c, err := kube.NewClient(s.Config, "test")
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err := c.Ask(ctx)
		cancel()
		switch {
		case err == nil:
			return nil
		case s.apiProc.over():
			return fmt.Errorf("the API server ended: %s", tail(f("apiserver.log")))
		case s.etcdProc.over():
			return fmt.Errorf("etcd ended: %s", tail(f("etcd.log")))
		case time.Now().After(deadline):
			return fmt.Errorf("the API server is not ready after %v: %w: %s", startTimeout, err, tail(f("apiserver.log")))
		}
	}
}

// StopAPI ends the API server; etcd keeps what it has.
func (s *Server) StopAPI() { s.apiProc.kill() }

// Freeze has the API server not answer until Thaw.
func (s *Server) Freeze() { s.apiProc.signal(syscall.SIGSTOP) }

// Thaw ends Freeze.
func (s *Server) Thaw() { s.apiProc.signal(syscall.SIGCONT) }

// Forget stops both programs and starts them again with nothing stored, and an
// etcd that has come to a revision: 0: its first.
func (s *Server) Forget(revision int) error {
	s.halt()
	if err := os.RemoveAll(s.etcdData); err != nil {
		return err
	}
	if err := s.startEtcd(); err != nil {
		return err
	}
	for range revision {
		if _, err := s.askEtcd("put", map[string]any{"key": []byte("/elsewhere"), "value": []byte("x")}); err != nil {
			return err
		}
	}
	return s.StartAPI()
}

// Backup copies what is stored, to be restored.
func (s *Server) Backup(dir string) error {
	s.halt()
	if err := os.CopyFS(dir, os.DirFS(s.etcdData)); err != nil {
		return err
	}
	if err := s.startEtcd(); err != nil {
		return err
	}
	return s.StartAPI()
}

// Restore has the server go on with what a Backup copied.
func (s *Server) Restore(dir string) error {
	s.halt()
	if err := os.RemoveAll(s.etcdData); err != nil {
		return err
	}
	if err := os.CopyFS(s.etcdData, os.DirFS(dir)); err != nil {
		return err
	}
	if err := s.startEtcd(); err != nil {
		return err
	}
	return s.StartAPI()
}

func (s *Server) halt() {
	s.apiProc.kill()
	s.etcdProc.kill()
}

// Stop ends both programs and removes all that they have written.
func (s *Server) Stop() {
	s.halt()
	os.RemoveAll(s.dir)
}

func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}

// A process is a program that ends with this one, however this one ends.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func start(log, program string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p := &process{cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the signal comes when the thread ends, not the process
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // how it ended is in its log
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	return p, nil
}

func (p *process) over() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) signal(s os.Signal) {
	if p != nil && !p.over() {
		_ = p.cmd.Process.Signal(s) // it may have ended this moment
	}
}

func (p *process) kill() {
	if p == nil {
		return
	}
	p.signal(syscall.SIGKILL)
	<-p.done
}
