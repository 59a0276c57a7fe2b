package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Type is the plugin's name: that of its program, and in configurations.
const Type = "slicewire-cni"

// Chain returns a network's configuration with the plugin at its end, in place of
// one that is there. A configuration of a single plugin becomes a list.
func Chain(conf []byte, plugin map[string]any) ([]byte, error) {
	list, plugins, err := pluginsOf(conf)
	if err != nil {
		return nil, err
	}
	if len(plugins) == 0 {
		return nil, errors.New("it has no plugin to come after")
	}
	entry := map[string]any{"type": Type, "capabilities": map[string]any{"io.kubernetes.cri.pod-annotations": true}}
	for k, v := range plugin {
		entry[k] = v
	}
	list["plugins"] = append(without(plugins), entry)
	return json.MarshalIndent(list, "", "  ")
}

// Unchain returns a configuration without the plugin.
func Unchain(conf []byte) ([]byte, error) {
	list, plugins, err := pluginsOf(conf)
	if err != nil {
		return nil, err
	}
	list["plugins"] = without(plugins)
	return json.MarshalIndent(list, "", "  ")
}

func without(plugins []any) []any {
	return slices.DeleteFunc(plugins, func(p any) bool {
		m, _ := p.(map[string]any)
		return m["type"] == Type
	})
}

func pluginsOf(conf []byte) (map[string]any, []any, error) {
	var list map[string]any
	if err := json.Unmarshal(conf, &list); err != nil {
		return nil, nil, err
	}
	plugins, ok := list["plugins"].([]any)
	if ok {
		return list, plugins, nil
	}
	if _, single := list["type"].(string); !single {
		return nil, nil, errors.New("want a list of plugins (plugins), or a plugin (type)")
	}
	out := map[string]any{"cniVersion": list["cniVersion"], "name": list["name"]}
	delete(list, "cniVersion")
	delete(list, "name")
	return out, []any{list}, nil
}

// ErrNoNetwork says that a node has no network to chain the plugin to.
var ErrNoNetwork = errors.New("no network's configuration")

// Install chains the plugin to the network that runtimes take of a folder: the
// first by name. It writes only what differs, and reports whether it did.
func Install(folder string, plugin map[string]any) (wrote bool, err error) {
	path, err := firstNetwork(folder)
	if err != nil {
		return false, err
	}
	return change(path, func(b []byte) ([]byte, error) { return Chain(b, plugin) })
}

// Uninstall takes the plugin out of every configuration of a folder.
func Uninstall(folder string) error {
	list, err := networks(folder)
	if err != nil {
		return err
	}
	var faults []error
	for _, path := range list {
		if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), Type) {
			continue // it may have gone, and what does not name it is not touched
		}
		_, err := change(path, Unchain)
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

func networks(folder string) (out []string, err error) {
	list, err := os.ReadDir(folder) // in the order of their names, as runtimes have it
	for _, e := range list {
		if slices.Contains([]string{".conflist", ".conf", ".json"}, filepath.Ext(e.Name())) {
			out = append(out, filepath.Join(folder, e.Name()))
		}
	}
	return out, err
}

func firstNetwork(folder string) (string, error) {
	list, err := networks(folder)
	if err != nil {
		return "", err
	}
	if len(list) == 0 {
		return "", fmt.Errorf("%s: %w: install the cluster's own network first", folder, ErrNoNetwork)
	}
	return list[0], nil
}

// change replaces a file by what f makes of it. A list is in a file whose name
// says so: where that changes, the old file goes.
func change(path string, f func([]byte) ([]byte, error)) (bool, error) {
	old, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	now, err := f(old)
	if err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	if same(old, now) {
		return false, nil
	}
	to := strings.TrimSuffix(path, filepath.Ext(path)) + ".conflist"
	if err := replaceFile(to, append(now, '\n'), 0o644); err != nil {
		return false, err
	}
	if to != path {
		return true, os.Remove(path)
	}
	return true, nil
}

// same reports whether two texts are the same JSON.
func same(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	p, err1 := json.Marshal(x)
	q, err2 := json.Marshal(y)
	return err1 == nil && err2 == nil && string(p) == string(q)
}
