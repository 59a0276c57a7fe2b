package inject

import yaml "go.yaml.in/yaml/v3"

// follow returns what an alias stands for.
func follow(n *yaml.Node) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// get returns a key's value, nil if there is none.
func get(n *yaml.Node, key string) *yaml.Node {
	n = follow(n)
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return follow(n.Content[i+1])
		}
	}
	return nil
}

func scalar(n *yaml.Node) string {
	if n == nil || n.Kind != yaml.ScalarNode {
		return ""
	}
	return n.Value
}

// drop removes a key.
func drop(n *yaml.Node, key string) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content = append(n.Content[:i], n.Content[i+2:]...)
			return
		}
	}
}

// child returns a key's value, and makes it if there is none or a null.
func child(n *yaml.Node, key string, kind yaml.Kind) *yaml.Node {
	if v := get(n, key); v != nil {
		if v.Kind == yaml.ScalarNode {
			*v = yaml.Node{Kind: kind}
		}
		return v
	}
	v := &yaml.Node{Kind: kind}
	n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, v)
	return v
}

func mapping(n *yaml.Node, key string) *yaml.Node { return child(n, key, yaml.MappingNode) }

// insert adds items to a list, before or after those that are there.
func insert(n *yaml.Node, key string, items []*yaml.Node, before bool) {
	list := child(n, key, yaml.SequenceNode)
	if before {
		list.Content = append(append([]*yaml.Node{}, items...), list.Content...)
		return
	}
	list.Content = append(list.Content, items...)
}

func named(list *yaml.Node, name string) bool {
	for _, item := range list.Content {
		if scalar(get(item, "name")) == name {
			return true
		}
	}
	return false
}

// removeNamed removes items of these names from a list, and the list with its
// last one.
func removeNamed(n *yaml.Node, key string, names ...string) {
	list := get(n, key)
	if list == nil || list.Kind != yaml.SequenceNode {
		return
	}
	var rest []*yaml.Node
	for _, item := range list.Content {
		ours := false
		for _, name := range names {
			ours = ours || scalar(get(item, "name")) == name
		}
		if !ours {
			rest = append(rest, item)
		}
	}
	if len(rest) == len(list.Content) {
		return
	}
	if list.Content = rest; len(rest) == 0 {
		drop(n, key)
	}
}
