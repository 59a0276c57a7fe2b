{{- define "slicewire.labels" -}}
app.kubernetes.io/name: slicewire
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: slicewire
{{- end }}

{{- define "slicewire.selector" -}}
app.kubernetes.io/name: slicewire
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* Of what takes slicewire out again: no Service selects it. */ -}}
{{- define "slicewire.uninstall" -}}
{app.kubernetes.io/part-of: slicewire, app.kubernetes.io/component: uninstall}
{{- end }}

{{- define "slicewire.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}

{{- /* The node file. ${...} is what the pod's environment says. */ -}}
{{- define "slicewire.node" -}}
version: 1
mesh: {{ quote .Values.mesh.name }}
site: {{ required "site: how is this cluster called in the mesh?" .Values.site | quote }}
node: {{ if eq .Values.flavour "node" }}${SLICEWIRE_HOST_NODE}{{ else }}${POD_NAME}{{ end }}
state: /state/node
socket: /state/slicewire.sock
listen: 0.0.0.0:51820
{{- $host := default "${HOST_IP}" .Values.service.host }}
{{- if eq .Values.flavour "edge" }}
gossip:
  reachable: false
{{- else if eq .Values.flavour "node" }}
advertise: ["{{ $host }}:51820"]
gossip:
  advertise: "{{ $host }}:7946"
{{- else if eq .Values.service.type "NodePort" }}
{{- if or (gt (mod (int .Values.service.tunnel) 10) 0) (gt (mod (int .Values.service.gossip) 10) 0) }}
{{- fail "service.tunnel and service.gossip: want numbers that end in 0" }}
{{- end }}
advertise: ["{{ $host }}:{{ div (int .Values.service.tunnel) 10 }}${POD_INDEX}"]
gossip:
  advertise: "{{ $host }}:{{ div (int .Values.service.gossip) 10 }}${POD_INDEX}"
{{- else }}
advertise: ["${POD_IP}:51820"]
gossip:
  advertise: "${POD_IP}:7946"
{{- end }}
{{- with .Values.mesh.gateways }}
  join:
{{- range . }}
  - {{ quote . }}
{{- end }}
{{- end }}
{{- $advertised := and (eq .Values.flavour "rootless") (eq .Values.service.type "NodePort") }}
{{- if or .Values.admit $advertised }}
join:
{{- if $advertised }}
  advertise: ["{{ $host }}:{{ div (int .Values.service.tunnel) 10 }}${POD_INDEX}"]
{{- end }}
{{- if .Values.admit }}
  kubernetes:
{{- range $i, $a := .Values.admit }}
  - site: {{ toJson $a.site }}
{{- if $a.jwks }}
    keys: jwks-{{ $i }}.json
{{- end }}
{{- range $k, $v := $a }}
{{- if and (ne $k "jwks") (ne $k "site") }}
    {{ $k }}: {{ toJson $v }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if .Values.hub.namespace }}
manifests: []
{{- else }}
manifests: [{{ range $i, $name := keys .Values.manifests | sortAlpha }}{{ if $i }}, {{ end }}{{ quote $name }}{{ end }}]
{{- end }}
{{- if or .Values.hub.namespace .Values.cluster.enabled }}
kubernetes:
{{- if .Values.hub.namespace }}
  hub:
    namespace: {{ quote .Values.hub.namespace }}
{{- if .Values.hub.kubeconfigSecret }}
    kubeconfig: /hub/kubeconfig
{{- end }}
{{- end }}
{{- if .Values.cluster.enabled }}
  cluster:
    linger: {{ .Values.cluster.linger }}
{{- if .Values.cluster.routed }}
    routed: true
{{- end }}
{{- if .Values.cluster.dns }}
    dns: 0.0.0.0:1053
{{- end }}
{{- end }}
{{- end }}
{{- range $k, $v := .Values.nodeFile }}
{{ $k }}: {{ toJson $v }}
{{- end }}
{{- end }}

{{- define "slicewire.env" -}}
- {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
- {name: HOST_IP, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}
{{- if eq .Values.flavour "node" }}
- {name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
{{- else }}
- {name: POD_INDEX, valueFrom: {fieldRef: {fieldPath: "metadata.labels['apps.kubernetes.io/pod-index']"}}}
{{- end }}
{{- end }}

{{- define "slicewire.security" -}}
{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
{{- end }}

{{- define "slicewire.pod" -}}
metadata:
  labels:
    {{- include "slicewire.labels" . | nindent 4 }}
  annotations:
    slicewire.io/config: {{ include "slicewire.config" . | sha256sum | trunc 16 | quote }}
    {{- range $k, $v := .Values.podAnnotations }}
    {{ $k }}: {{ quote $v }}
    {{- end }}
spec:
  serviceAccountName: {{ .Release.Name }}
  terminationGracePeriodSeconds: 30
  {{- with .Values.image.pullSecrets }}
  imagePullSecrets:
  {{- range . }}
  - name: {{ quote . }}
  {{- end }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector: {{ toJson . }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations: {{ toJson . }}
  {{- end }}
  {{- if eq .Values.flavour "node" }}
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  securityContext: {runAsUser: 0, seccompProfile: {type: RuntimeDefault}}
  {{- else }}
  securityContext: {runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
  topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector: {matchLabels: {app.kubernetes.io/name: slicewire, app.kubernetes.io/instance: {{ .Release.Name }}}}
  {{- end }}
  initContainers:
  - name: join
    image: {{ include "slicewire.image" . }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    args: [join, --kubernetes, --gateway, --config, /config/node.yaml, --authority, {{ if .Values.mesh.authority }}/config/ca.crt{{ else }}/state/node/ca.crt{{ end }}, --issuers, /config/issuers{{ if .Values.identity.secret }}, --seed, /identity{{ end }}]
    env:
    {{- include "slicewire.env" . | nindent 4 }}
    resources: {{ toJson .Values.resources }}
    securityContext: {{ include "slicewire.security" . }}
    volumeMounts:
    - {name: state, mountPath: /state}
    - {name: config, mountPath: /config}
    - {name: token, mountPath: /var/run/secrets/slicewire}
    {{- if .Values.identity.secret }}
    - {name: identity, mountPath: /identity}
    {{- end }}
  containers:
  - name: slicewire
    image: {{ include "slicewire.image" . }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    args: [daemon, --config, /config/node.yaml, --log-format, json, --log-level, {{ .Values.logLevel }}]
    env:
    {{- include "slicewire.env" . | nindent 4 }}
    - {name: GOMEMLIMIT, valueFrom: {resourceFieldRef: {containerName: slicewire, resource: limits.memory}}}
    ports:
    - {name: tunnel, containerPort: 51820, protocol: UDP}
    - {name: join, containerPort: 51820, protocol: TCP}
    - {name: gossip, containerPort: 7946, protocol: TCP}
    - {name: gossip-udp, containerPort: 7946, protocol: UDP}
    {{- if .Values.cluster.dns }}
    - {name: dns, containerPort: 1053, protocol: UDP}
    - {name: dns-tcp, containerPort: 1053, protocol: TCP}
    {{- end }}
    readinessProbe:
      exec: {command: [/slicewire, status, --socket, /state/slicewire.sock]}
      periodSeconds: 5
      timeoutSeconds: 5
    startupProbe:
      exec: {command: [/slicewire, status, --socket, /state/slicewire.sock]}
      periodSeconds: 1
      timeoutSeconds: 5
      failureThreshold: 120
    resources: {{ toJson .Values.resources }}
    securityContext: {{ include "slicewire.security" . }}
    volumeMounts:
    - {name: state, mountPath: /state}
    - {name: config, mountPath: /config}
    {{- if and .Values.hub.namespace .Values.hub.kubeconfigSecret }}
    - {name: hub, mountPath: /hub}
    {{- end }}
  {{- if .Values.cni.enabled }}
  {{- if ne .Values.flavour "node" }}
  {{- fail "cni.enabled: want flavour node: pods are put on slices by the daemon of their own node" }}
  {{- end }}
  # It enters pods' network namespaces and makes devices there; the daemon does not.
  - name: cni
    image: {{ include "slicewire.image" . }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    args: [cni, keep, --socket, /state/slicewire.sock, --node-socket, /var/lib/slicewire/slicewire.sock, --bin-dir, /host/bin{{ if .Values.cni.chain }}, --conf-dir, /host/conf{{ end }}]
    resources: {requests: {cpu: 10m, memory: 32Mi}, limits: {memory: 256Mi}}
    securityContext: {privileged: true, readOnlyRootFilesystem: true}
    volumeMounts:
    - {name: state, mountPath: /state}
    {{- if .Values.cni.chain }}
    - {name: cni-conf, mountPath: /host/conf}
    {{- end }}
    - {name: cni-bin, mountPath: /host/bin}
    - {name: cni-state, mountPath: /run/slicewire-cni}
    - {name: netns, mountPath: /run/netns, mountPropagation: HostToContainer}
    - {name: netns, mountPath: /var/run/netns, mountPropagation: HostToContainer}
  {{- end }}
  volumes:
  {{- if .Values.cni.enabled }}
  {{- if .Values.cni.chain }}
  - name: cni-conf
    hostPath: {path: {{ quote .Values.cni.confDir }}, type: Directory}
  {{- end }}
  - name: cni-bin
    hostPath: {path: {{ quote .Values.cni.binDir }}, type: DirectoryOrCreate}
  - name: cni-state
    hostPath: {path: /run/slicewire-cni, type: DirectoryOrCreate}
  - name: netns
    hostPath: {path: /run/netns, type: DirectoryOrCreate}
  {{- end }}
  {{- if eq .Values.flavour "node" }}
  - name: state
    hostPath: {path: /var/lib/slicewire, type: DirectoryOrCreate}
  {{- else }}
  - name: state
    emptyDir: {medium: Memory, sizeLimit: 64Mi}
  {{- end }}
  - name: config
    configMap: {name: {{ .Release.Name }}}
  - name: token
    projected:
      sources:
      - serviceAccountToken: {path: token, audience: slicewire, expirationSeconds: 600}
  {{- if .Values.identity.secret }}
  - name: identity
    secret: {secretName: {{ quote .Values.identity.secret }}}
  {{- end }}
  {{- if and .Values.hub.namespace .Values.hub.kubeconfigSecret }}
  - name: hub
    secret: {secretName: {{ quote .Values.hub.kubeconfigSecret }}}
  {{- end }}
{{- end }}

{{- define "slicewire.config" -}}
node.yaml: |
  {{- include "slicewire.node" . | nindent 2 }}
ca.crt: |
  {{- if not (or .Values.mesh.authority .Values.identity.secret) }}
  {{- fail "mesh.authority: want the certificate of the mesh's authority (ca.crt), or identity.secret" }}
  {{- end }}
  {{- .Values.mesh.authority | nindent 2 }}
issuers: |
  {{- range .Values.mesh.issuers }}
  {{ . }}
  {{- end }}
{{- range $i, $a := .Values.admit }}
{{- if $a.jwks }}
jwks-{{ $i }}.json: {{ $a.jwks | toJson }}
{{- end }}
{{- end }}
{{- range $name, $text := .Values.manifests }}
{{ $name }}: {{ toJson $text }}
{{- end }}
{{- end }}
