package kubetest

import (
	"fmt"
	"strings"
)

// Pods is a Deployment of pods that have the tools and run a command, as PodSecurity
// restricted has it. It ends at once. Its label app is its name.
func Pods(namespace, name string, command ...string) string {
	return pods(namespace, name, "", command)
}

// Servers are Pods that serve with `peer serve` at port 8080, or with another way
// of it, and are ready as soon as they do. There are as many as replicas says.
func Servers(namespace, name string, replicas int, way string) string {
	return pods(namespace, name, fmt.Sprintf("replicas: %d", replicas), []string{"peer", way, ":8080"}) +
		"        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}\n"
}

func pods(namespace, name, more string, command []string) string {
	return fmt.Sprintf(`
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  %[3]s
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 0
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: %[1]s
        image: tools:1
        command: ["%[4]s"]
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`, name, namespace, more, strings.Join(command, `", "`))
}

// Restricted is a namespace whose pods have to pass the strictest standard.
func Restricted(name string) string {
	return "\n---\n{apiVersion: v1, kind: Namespace, metadata: {name: " + name + ", labels: {pod-security.kubernetes.io/enforce: restricted}}}\n"
}
