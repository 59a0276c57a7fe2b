package cni

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// AnnotationSlice on a pod names the slice that it is to be on.
const AnnotationSlice = "slicewire.io/slice"

// Defaults of the plugin's configuration.
const (
	// DefaultState is on a file system that a reboot empties: no attachment
	// survives one either.
	DefaultState  = "/run/slicewire-cni"
	defaultDevice = "sw0"
)

// Codes of errors that are the plugin's own.
const (
	codeNotAllowed = 100 // the slice is not for the pod's namespace
	codeAmbiguous  = 101 // several slices are for it
	codeMissing    = 102 // CHECK: something of the attachment is gone
)

// Conf is the plugin's part of a network's configuration.
type Conf struct {
	types.PluginConf
	Slice   string   `json:"slice"`   // empty: the pod's annotation, else the one that its namespace is bound to
	Socket  string   `json:"socket"`  // of the daemon; empty: its usual place
	State   string   `json:"state"`   // folder of records; empty: DefaultState
	Device  string   `json:"device"`  // in the pod, behind another plugin; empty: sw0
	Exclude []string `json:"exclude"` // namespaces that are on no slice; empty: kube-system

	RuntimeConfig struct {
		// As containerd and CRI-O pass them, where the configuration has the capability.
		Annotations map[string]string `json:"io.kubernetes.cri.pod-annotations"`
	} `json:"runtimeConfig"`
}

// podArgs are what a Kubernetes runtime says of the pod.
type podArgs struct {
	types.CommonArgs
	K8S_POD_NAME      types.UnmarshallableString //nolint:revive // the library finds arguments by fields' names
	K8S_POD_NAMESPACE types.UnmarshallableString //nolint:revive // as above
}

var (
	deviceName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}$`)
	sliceName  = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
)

// parseConf reads a configuration and the result of the plugin before.
func parseConf(data []byte) (*Conf, error) {
	c := new(Conf)
	if err := json.Unmarshal(data, c); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "slicewire's configuration: "+err.Error(), "")
	}
	if c.State == "" {
		c.State = DefaultState
	}
	if c.Device == "" {
		c.Device = defaultDevice
	}
	if c.Exclude == nil {
		c.Exclude = []string{"kube-system"}
	}
	wrong := ""
	switch {
	case c.Slice != "" && !sliceName.MatchString(c.Slice):
		wrong = fmt.Sprintf("slice %q: want the name of a slice", c.Slice)
	case !deviceName.MatchString(c.Device):
		wrong = fmt.Sprintf("device %q: want the name of an interface, at most 15 letters", c.Device)
	case !filepath.IsAbs(c.State):
		wrong = fmt.Sprintf("state %q: want an absolute path", c.State)
	case c.Name == "" || strings.ContainsAny(c.Name, "/\x00") || strings.HasPrefix(c.Name, "."):
		wrong = fmt.Sprintf("name %q: want the network's name", c.Name)
	}
	if wrong != "" {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, wrong, "")
	}
	if err := version.ParsePrevResult(&c.PluginConf); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "the result of the plugin before: "+err.Error(), "")
	}
	return c, nil
}

// A pod is what a runtime asks for.
type pod struct {
	container string
	netns     string
	device    string
	namespace string // of Kubernetes; empty: none said
	name      string
}

// podOf reads the arguments. Behind another plugin the device is the
// configuration's: the name that is given is that of the other's interface.
func podOf(a *skel.CmdArgs, c *Conf, chained bool) (pod, error) {
	var k podArgs
	k.IgnoreUnknown = true // runtimes say more than that
	if err := types.LoadArgs(a.Args, &k); err != nil {
		return pod{}, types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_ARGS: "+err.Error(), "")
	}
	p := pod{container: a.ContainerID, netns: a.Netns, device: a.IfName, namespace: string(k.K8S_POD_NAMESPACE), name: string(k.K8S_POD_NAME)}
	if chained {
		p.device = c.Device
	}
	return p, nil
}
