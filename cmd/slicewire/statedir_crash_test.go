package main

import (
	"bufio"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"slicewire/statedir"
)

var kills = flag.Int("kills", 500, "how often the writer of a state folder is killed")

// writeState writes to the state folder named by its argument until it is
// killed. It says each boot counter that it was given.
func writeState(folder string) {
	d := statedir.Dir(folder)
	if _, err := d.Lock(); err != nil {
		fmt.Println(err)
		return
	}
	for i := 0; ; i++ {
		epoch, err := d.NextEpoch(time.Unix(0, 0))
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(epoch)
		key := func() ([32]byte, error) { return [32]byte{1, 2, 3}, nil }
		if _, err := d.MakeWireGuardKey(fmt.Sprintf("slice-%d", i%8), uint64(i%3), key); err != nil {
			fmt.Println(err)
			return
		}
		addresses := make(map[string]uint64)
		for j := range 500 {
			addresses[fmt.Sprintf("workload-%d", j)] = epoch
		}
		if err := d.WriteJSON(statedir.FileAddresses, addresses); err != nil {
			fmt.Println(err)
			return
		}
	}
}

// TestStateIsWholeAfterEveryKill kills a writer at any point of its writes.
func TestStateIsWholeAfterEveryKill(t *testing.T) {
	d := newStateDir(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	said := uint64(0)
	for kill := range *kills {
		said = max(said, killedWriter(t, d, time.Duration(random.Int64N(int64(4*time.Millisecond)))))
		release, err := d.Lock()
		if err != nil {
			t.Fatalf("kill %d: %v", kill, err)
		}
		if err := d.Sweep(); err != nil {
			t.Fatalf("kill %d: %v", kill, err)
		}
		checkState(t, d, kill, said)
		release()
	}
	t.Logf("%d kills, boot counter %d", *kills, said)
	if said < uint64(*kills) {
		t.Errorf("the writers counted to %d only: they were killed before they wrote", said)
	}
}

// killedWriter starts a writer, kills it some time after its first word, and
// returns the highest counter that it said.
func killedWriter(t *testing.T, d statedir.Dir, after time.Duration) (said uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asProbe+"=state "+string(d))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for n := 0; lines.Scan(); n++ {
		if _, err := fmt.Sscan(lines.Text(), &said); err != nil {
			t.Errorf("the writer says %q", lines.Text())
		}
		if n == 0 {
			time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
	}
	_ = cmd.Wait() // it was killed
	return said
}

func checkState(t *testing.T, d statedir.Dir, kill int, said uint64) {
	t.Helper()
	epoch, err := d.Epoch()
	if err != nil || epoch < said {
		t.Fatalf("kill %d: boot counter %d, %v; %d was given out", kill, epoch, err, said)
	}
	for i := range 8 {
		keys, err := d.WireGuardKeys(fmt.Sprintf("slice-%d", i))
		if err != nil {
			t.Fatalf("kill %d: %v", kill, err)
		}
		for generation, key := range keys {
			if key[2] != 3 {
				t.Fatalf("kill %d: a key of generation %d that was never made", kill, generation)
			}
		}
	}
	var addresses map[string]uint64
	if err := statedir.ReadJSON(d, statedir.FileAddresses, &addresses); err != nil || addresses != nil {
		if one := slices.Compact(slices.Collect(maps.Values(addresses))); err != nil || len(addresses) != 500 || len(one) != 1 {
			t.Fatalf("kill %d: addresses of %d writes, %v", kill, len(one), err)
		}
	}
	for _, dir := range []string{".", statedir.DirWireGuard} {
		entries, err := os.ReadDir(d.Path(dir))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") {
				t.Errorf("kill %d: %s was left behind", kill, e.Name())
			}
		}
	}
}

func TestADamagedBootCounterIsExplained(t *testing.T) {
	for _, text := range []string{"", "12a\n", "-1\n", "18446744073709551616\n", "\x00\x00"} {
		d := newStateDir(t)
		if err := os.WriteFile(d.Path(statedir.FileEpoch), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := d.NextEpoch(time.Now()); err == nil || !strings.Contains(err.Error(), d.Path(statedir.FileEpoch)) || !strings.Contains(err.Error(), "write ") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func newStateDir(t *testing.T) statedir.Dir {
	t.Helper()
	d := statedir.Dir(filepath.Join(t.TempDir(), "state"))
	if err := d.Create(); err != nil {
		t.Fatal(err)
	}
	return d
}
