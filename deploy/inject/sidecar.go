package inject

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"

	yaml "go.yaml.in/yaml/v3"
)

// A Sidecar is what is injected.
type Sidecar struct {
	Image     string
	Mesh      string // name
	Site      string
	Slice     string
	Authority string   // certificate of the mesh's authority, PEM
	Issuers   []string // host:port of gateways that let the cluster's pods in
	Gateways  []string // host:port of gossip
	Manifests string   // slices and what belongs to them, YAML documents
	Proxy     string   // where the pod's other containers find the slice: SOCKS5 and HTTP CONNECT; empty: nowhere
	Publish   []Published
}

// A Published service is one that a container of the pod serves.
type Published struct {
	Service  string
	Port     uint16
	Protocol string // TCP or UDP
}

// ParsePublished reads SERVICE=PORT or SERVICE=PORT/udp.
func ParsePublished(text string) (Published, error) {
	name, port, ok := strings.Cut(text, "=")
	number, protocol, given := strings.Cut(port, "/")
	if !given {
		protocol = "tcp"
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if !ok || err != nil {
		return Published{}, fmt.Errorf("%q: want SERVICE=PORT or SERVICE=PORT/udp", text)
	}
	return Published{Service: name, Port: uint16(n), Protocol: strings.ToUpper(protocol)}, nil
}

// Name is that of the port, which has to be unlike those of the service's others.
func (p Published) Name() string { return fmt.Sprintf("%s-%d", strings.ToLower(p.Protocol), p.Port) }

// A service is all that is published under one name.
type service struct {
	Name  string
	Ports []Published
}

// Services puts the ports of each service together, as node files want them.
func (s *Sidecar) Services() []service {
	var out []service
	for _, p := range s.Publish {
		i := slices.IndexFunc(out, func(x service) bool { return x.Name == p.Service })
		if i < 0 {
			i = len(out)
			out = append(out, service{Name: p.Service})
		}
		out[i].Ports = append(out[i].Ports, p)
	}
	return out
}

var (
	label = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	plain = regexp.MustCompile(`^[-A-Za-z0-9._:/@\[\]]+$`)
)

// maxNotes is what fits into a pod's annotations, which Kubernetes bounds at 256
// KiB together.
const maxNotes = 200 << 10

func (s *Sidecar) validate() error {
	if !label.MatchString(s.Site) || !label.MatchString(s.Slice) || !label.MatchString(s.Mesh) {
		return fmt.Errorf("mesh %q, site %q, slice %q: want DNS labels", s.Mesh, s.Site, s.Slice)
	}
	if s.Authority == "" || len(s.Issuers) == 0 || len(s.Gateways) == 0 || s.Manifests == "" {
		return errors.New("the authority's certificate, issuers, gateways and the slice's manifests are needed")
	}
	for _, x := range append(append([]string{s.Image}, s.Issuers...), s.Gateways...) {
		if !plain.MatchString(x) {
			return fmt.Errorf("%q: want an image's name, or host:port", x)
		}
	}
	if s.Proxy != "" && !plain.MatchString(s.Proxy) {
		return fmt.Errorf("proxy %q: want host:port", s.Proxy)
	}
	for i, p := range s.Publish {
		if slices.Contains(s.Publish[:i], p) {
			return fmt.Errorf("published service %s: port %d/%s is there twice", p.Service, p.Port, p.Protocol)
		}
		if !label.MatchString(p.Service) || p.Port == 0 || p.Protocol != "TCP" && p.Protocol != "UDP" {
			return fmt.Errorf("published service %+v: want a DNS label, a port, and TCP or UDP", p)
		}
	}
	if n := len(s.Authority) + len(s.Manifests); n > maxNotes {
		return fmt.Errorf("authority and manifests have %d bytes: %d fit into a pod's annotations", n, maxNotes)
	}
	return nil
}

// parts are what is put into a pod.
type parts struct {
	containers, volumes []*yaml.Node
	annotations         *yaml.Node
}

// nodeFile is the sidecar's. ${...} is what the pod's environment says.
var nodeFile = template.Must(template.New("node").Parse(`version: 1
mesh: {{.Mesh}}
site: {{.Site}}
node: ${SLICEWIRE_POD_NODE}
ephemeral: true
state: /state/node
socket: /state/slicewire.sock
listen: 0.0.0.0:0
gossip:
  reachable: false
  join:
{{- range .Gateways}}
  - "{{.}}"
{{- end}}
manifests: [manifests.yaml]
{{- if .Proxy}}
slices:
  {{.Slice}}:
    proxy: {{.Proxy}}
{{- end}}
{{- if .Publish}}
publish:
{{- range .Services}}
- slice: {{$.Slice}}
  service: {{.Name}}
  namespace: ${POD_NAMESPACE}
{{- if eq (len .Ports) 1}}
{{- range .Ports}}
  target: 127.0.0.1:{{.Port}}
  export: [{port: {{.Port}}, protocol: {{.Protocol}}}]
{{- end}}
{{- else}}
  ports:
{{- range .Ports}}
  - {name: {{.Name}}, target: 127.0.0.1:{{.Port}}}
{{- end}}
  export:
{{- range .Ports}}
  - {name: {{.Name}}, port: {{.Port}}, protocol: {{.Protocol}}}
{{- end}}
{{- end}}
{{- end}}
{{- end}}
`))

const podParts = `
containers:
- name: slicewire-join
  image: IMAGE
  args: [join, --kubernetes, --config, /config/node.yaml, --authority, /config/ca.crt, --issuers, /config/issuers]
  env: &env
  - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
  - {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
  resources: &resources {requests: {cpu: 10m, memory: 32Mi}, limits: {memory: 256Mi}}
  securityContext: &security {runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}
  volumeMounts: &mounts
  - {name: slicewire-state, mountPath: /state}
  - {name: slicewire-config, mountPath: /config}
  - {name: slicewire-token, mountPath: /var/run/secrets/slicewire}
- name: slicewire
  image: IMAGE
  restartPolicy: Always
  args: [daemon, --config, /config/node.yaml, --log-format, json]
  env: *env
  startupProbe: {exec: {command: [/slicewire, status, --socket, /state/slicewire.sock]}, periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 120}
  resources: *resources
  securityContext: *security
  volumeMounts: *mounts
volumes:
- name: slicewire-state
  emptyDir: {medium: Memory, sizeLimit: 64Mi}
- name: slicewire-config
  downwardAPI:
    items:
    - {path: node.yaml, fieldRef: {fieldPath: "metadata.annotations['sidecar.slicewire.io/node.yaml']"}}
    - {path: ca.crt, fieldRef: {fieldPath: "metadata.annotations['sidecar.slicewire.io/ca.crt']"}}
    - {path: issuers, fieldRef: {fieldPath: "metadata.annotations['sidecar.slicewire.io/issuers']"}}
    - {path: manifests.yaml, fieldRef: {fieldPath: "metadata.annotations['sidecar.slicewire.io/manifests.yaml']"}}
- name: slicewire-token
  projected:
    sources:
    - serviceAccountToken: {path: token, audience: slicewire, expirationSeconds: 600}
`

func (s *Sidecar) parts() (parts, error) {
	var p struct {
		Containers, Volumes []any
	}
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(podParts, "IMAGE", s.Image)), &p); err != nil {
		return parts{}, err
	}
	var file strings.Builder
	if err := nodeFile.Execute(&file, s); err != nil {
		return parts{}, err
	}
	out := parts{annotations: &yaml.Node{Kind: yaml.MappingNode}}
	for _, x := range []struct{ name, text string }{
		{"node.yaml", file.String()}, {"ca.crt", s.Authority}, {"issuers", strings.Join(s.Issuers, "\n") + "\n"}, {"manifests.yaml", s.Manifests},
	} {
		out.annotations.Content = append(out.annotations.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: annotations + x.name},
			&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.LiteralStyle, Value: x.text})
	}
	var err error
	if out.containers, err = nodes(p.Containers); err != nil {
		return out, err
	}
	out.volumes, err = nodes(p.Volumes)
	return out, err
}

func nodes(values []any) ([]*yaml.Node, error) {
	var out []*yaml.Node
	for _, v := range values {
		n := new(yaml.Node)
		if err := n.Encode(v); err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}
