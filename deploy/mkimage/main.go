// Mkimage writes the container image of a slicewire program as an archive, from
// nothing, without a registry:
//
//	mkimage -program bin/slicewire -version v1 -o bin/slicewire.tar
//	docker load -i bin/slicewire.tar
//	ctr --namespace k8s.io images import bin/slicewire.tar
package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"slicewire/deploy/image"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	f := flag.NewFlagSet("mkimage", flag.ContinueOnError)
	program := f.String("program", "", "a static slicewire for Linux")
	version := f.String("version", "", "its version, which is the image's tag too")
	repository := f.String("name", "docker.io/library/slicewire", "the image's full name, without a tag")
	out := f.String("o", "", "archive to write")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *program == "" || *version == "" || *out == "" {
		return errors.New("-program, -version and -o are needed")
	}
	data, err := os.ReadFile(*program)
	if err != nil {
		return err
	}
	arch, err := archOf(data)
	if err != nil {
		return fmt.Errorf("%s: %w", *program, err)
	}
	name := *repository + ":" + strings.ReplaceAll(*version, "+", "-") // a tag may have no plus sign
	w, err := os.Create(*out)
	if err != nil {
		return err
	}
	if err := errors.Join(image.Write(w, image.Slicewire(data, arch, *version, name)), w.Close()); err != nil {
		return err
	}
	fmt.Printf("%s: %s, %s\n", *out, name, arch)
	return nil
}

// archOf says which processor a program is for. One that needs a loader does not
// start in an empty image and is refused.
func archOf(program []byte) (string, error) {
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return "", fmt.Errorf("not a program for Linux: %w", err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return "", errors.New("it needs shared libraries, which an empty image does not have: build it with CGO_ENABLED=0")
		}
	}
	switch f.Machine {
	case elf.EM_X86_64:
		return "amd64", nil
	case elf.EM_AARCH64:
		return "arm64", nil
	case elf.EM_ARM:
		return "arm", nil
	default:
		return "", fmt.Errorf("no name is known for its processor (%v)", f.Machine)
	}
}
