package image

import "io/fs"

// User is who slicewire runs as in its image: nobody of any other system.
const User = "65532:65532"

// Slicewire is the image of a static slicewire program. It has nothing else in
// it but a folder for temporary files: no shell, no certificates of authorities,
// no libraries.
func Slicewire(program []byte, arch, version string, names ...string) Image {
	return Image{
		Names: names, Arch: arch, User: User,
		Entrypoint: []string{"/slicewire"},
		Labels: map[string]string{
			"org.opencontainers.image.title":   "slicewire",
			"org.opencontainers.image.version": version,
		},
		Files: []File{
			{Path: "slicewire", Mode: 0o755, Data: program},
			{Path: "tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		},
	}
}
