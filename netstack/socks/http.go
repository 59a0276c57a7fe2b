package socks

import (
	"bytes"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// An httpError is a request that gets a status instead of a tunnel.
type httpError struct {
	status int
	text   string
}

func (e *httpError) Error() string { return e.text }

var (
	errBadRequest = &httpError{400, "the request is not HTTP/1.1 as RFC 9112 has it"}
	errBadTarget  = &httpError{400, "the target of CONNECT is host:port"}
	errBody       = &httpError{400, "CONNECT has no content"}
	errMethod     = &httpError{405, "this proxy carries connections: use CONNECT, or SOCKS5 for UDP too"}
	errHeaderSize = &httpError{431, "the request header is too long"}
	errVersion    = &httpError{505, "this proxy speaks HTTP/1.1"}
)

var statusText = map[int]string{
	400: "Bad Request", 403: "Forbidden", 405: "Method Not Allowed", 431: "Request Header Fields Too Large",
	502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout", 505: "HTTP Version Not Supported",
}

// established is the whole reply to a CONNECT that worked. RFC 9110 section
// 9.3.6: it has no content and must not say how long that is.
const established = "HTTP/1.1 200 Connection established\r\n\r\n"

// parseConnect reads a CONNECT request. Line ends are CRLF and nothing else,
// and fields that would give the request a content are refused: what follows
// the header belongs to the tunnel, and nobody may see that otherwise.
func parseConnect(b []byte) (t target, n int, err error) {
	for first := true; ; first = false {
		i := bytes.IndexByte(b[n:], '\n')
		if i < 0 {
			return target{}, 0, errShort
		}
		if i == 0 || b[n+i-1] != '\r' {
			return target{}, 0, errBadRequest
		}
		line := b[n : n+i-1]
		n += i + 1
		switch {
		case first:
			if t, err = parseRequestLine(string(line)); err != nil {
				// The status waits for the whole header, so that the client
				// is ready for it.
				if !bytes.Contains(b, []byte("\r\n\r\n")) {
					return target{}, 0, errShort
				}
				return target{}, 0, err
			}
		case len(line) == 0:
			return t, n, nil
		default:
			if err = checkField(line); err != nil {
				return target{}, 0, err
			}
		}
	}
}

func parseRequestLine(line string) (target, error) {
	method, rest, ok1 := strings.Cut(line, " ")
	authority, version, ok2 := strings.Cut(rest, " ")
	switch {
	case !ok1 || !ok2 || strings.Contains(version, " "):
		return target{}, errBadRequest
	case version != "HTTP/1.1" && version != "HTTP/1.0":
		if strings.HasPrefix(version, "HTTP/") {
			return target{}, errVersion
		}
		return target{}, errBadRequest
	case method != "CONNECT":
		return target{}, errMethod
	}
	host, portText, err := net.SplitHostPort(authority)
	if err != nil {
		return target{}, errBadTarget
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 || strings.ContainsAny(host, "@/?#\\[]") {
		return target{}, errBadTarget
	}
	// Only an IPv6 address is written in brackets, and always.
	if strings.HasPrefix(authority, "[") != strings.Contains(host, ":") {
		return target{}, errBadTarget
	}
	t, err := parseHost(host, uint16(port))
	if err != nil || t.name != "" && strings.Contains(host, ":") {
		return target{}, errBadTarget
	}
	return t, nil
}

func checkField(line []byte) error {
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok || len(name) == 0 || bytes.ContainsAny(name, " \t") {
		return errBadRequest
	}
	switch strings.ToLower(string(name)) {
	case "transfer-encoding":
		return errBody
	case "content-length":
		if string(bytes.TrimSpace(value)) != "0" {
			return errBody
		}
	}
	return nil
}

// httpReply is the whole reply to a request that gets no tunnel. proxyStatus is
// RFC 9209's error type, or empty.
func httpReply(status int, text, proxyStatus string) []byte {
	var extra string
	if status == 405 {
		extra = "Allow: CONNECT\r\n"
	}
	if proxyStatus != "" {
		extra = "Proxy-Status: slicewire; error=" + proxyStatus + "\r\n"
	}
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n%s\r\n%s\n",
		status, statusText[status], len(text)+1, extra, text)
}
