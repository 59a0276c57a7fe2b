package e2e

import "fmt"

// nodeShell is a pod that sees a node as root does there.
const nodeShell = `
apiVersion: v1
kind: Pod
metadata: {name: shell, namespace: default}
spec:
  hostPID: true
  terminationGracePeriodSeconds: 0
  securityContext: {runAsUser: 0}
  volumes:
  - {name: run, hostPath: {path: /run}}
  - {name: lib, hostPath: {path: /var/lib}}
  containers:
  - name: shell
    image: tools:1
    command: [sleep, "3600"]
    securityContext: {privileged: true}
    volumeMounts:
    - {name: run, mountPath: /run, mountPropagation: HostToContainer}
    - {name: run, mountPath: /var/run, mountPropagation: HostToContainer}
    - {name: lib, mountPath: /var/lib}
`

// restrictedSpace is a namespace of the slice whose pods pass the strictest
// standard, and may ask for the sidecar.
const restrictedSpace = `
apiVersion: v1
kind: Namespace
metadata: {name: iperf, labels: {pod-security.kubernetes.io/enforce: restricted, slicewire.io/inject: enabled}}
`

// restrictedPods is a Deployment of that name; its pods have labels, annotations
// and containers besides.
func restrictedPods(name, labels, annotations, containers string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, namespace: iperf}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s, %[2]s}, annotations: {%[3]s}}
    spec:
      terminationGracePeriodSeconds: 0
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: peer
        image: tools:1
        command: [peer, serve, ":8080"]
        securityContext: &none {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
      - name: web
        image: tools:1
        command: [sh, -c, "hostname > /tmp/index.html; exec httpd -f -p 8081 -h /tmp"]
        securityContext: *none
%[4]s`, name, labels, annotations, containers)
}

const curlContainer = `
      - name: curl
        image: curl:1
        env: [{name: ALL_PROXY, value: "socks5h://127.0.0.1:1080"}]
        securityContext: *none
`
