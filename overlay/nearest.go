package overlay

import "strings"

// maxNearestLen bounds the words that Nearest compares: the work is quadratic,
// and nobody misspells a longer key by two letters.
const maxNearestLen = 64

// Nearest returns the known word that the given one most likely stands for, or
// "" when none is close: at most two letters wrong, and fewer than half of
// them. Case does not count. Of equally close words the first wins.
func Nearest(word string, known []string) string {
	if len(word) > maxNearestLen {
		return ""
	}
	w := strings.ToLower(word)
	best, bestDist := "", 3
	for _, k := range known {
		if len(k) > maxNearestLen {
			continue
		}
		d := distance(w, strings.ToLower(k))
		if d < bestDist && d*2 < max(len(w), len(k)) {
			best, bestDist = k, d
		}
	}
	return best
}

// distance is the Levenshtein distance in bytes, with the swap of two
// neighbours counted as one.
func distance(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	before, prev, cur := rows[0], rows[1], rows[2]
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev, cur = prev, cur, before
	}
	return prev[len(b)]
}
