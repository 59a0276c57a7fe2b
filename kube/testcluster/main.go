package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

const usage = `usage: testcluster VERB [FLAGS]
  build   build Kubernetes into the cache
  up      run clusters until standard input ends, SIGINT or SIGTERM`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "testcluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("no verb\n%s", usage)
	}
	switch verb, args := args[0], args[1:]; verb {
	case "build":
		return runBuild(ctx, args)
	case "up":
		return runUp(ctx, args)
	case verbInit:
		return runInit(args[0])
	case verbRig:
		return runRig(args[0])
	case verbNode:
		return runNode(args[0])
	default:
		return fmt.Errorf("no verb %q\n%s", verb, usage)
	}
}

func runBuild(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("build", flag.ContinueOnError)
	cache := f.String("cache", defaultCache(), "folder of built programs")
	if err := f.Parse(args); err != nil {
		return err
	}
	dir, err := build(ctx, *cache)
	if err != nil {
		return err
	}
	fmt.Println(dir)
	return nil
}

func runUp(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("up", flag.ContinueOnError)
	cache := f.String("cache", defaultCache(), "folder of built programs")
	dir := f.String("dir", "", "folder for kubeconfigs and logs; must exist")
	clusters := f.Int("clusters", 2, "how many clusters")
	nodes := f.Int("nodes", 2, "how many nodes each; 0: a control plane only")
	dual := f.Bool("dual-stack", false, "nodes, pods and services have IPv6 addresses as well as IPv4")
	if err := f.Parse(args); err != nil {
		return err
	}
	bin, err := build(ctx, *cache)
	if err != nil {
		return err
	}
	c := config{Clusters: *clusters, Nodes: *nodes, Bin: bin, DualStack: *dual}
	if c.Dir, err = filepath.Abs(*dir); err != nil {
		return err
	}
	if err := c.validate(*dir); err != nil {
		return err
	}
	return up(ctx, c, func(r ready) error { return json.NewEncoder(os.Stdout).Encode(r) })
}
