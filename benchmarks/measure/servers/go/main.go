// Go's standard way: a goroutine for each client, a buffered reader with its default size, one write
// for whatever the buffer held. GOMAXPROCS is the number of cores that the process may run on.
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"unicode/utf8"
)

const maxMessageBytes = 65536

var (
	received = []byte("Received: ")
	tooLong  = []byte("Error: message-too-long: a message is limited to 65536 bytes\n")
	notUTF8  = []byte("Error: invalid-utf8: the message is not UTF-8\n")
	exit     = []byte("/exit")
)

// readLine returns a line without its terminator, valid until the next call. A line that is longer
// than the reader's buffer is gathered in spare.
func readLine(reader *bufio.Reader, spare []byte) (line, kept []byte, err error) {
	line, err = reader.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		spare = append(spare[:0], line...)
		for err == bufio.ErrBufferFull && len(spare) <= maxMessageBytes+2 {
			line, err = reader.ReadSlice('\n')
			spare = append(spare, line...)
		}
		line = spare
	}
	line = bytes.TrimSuffix(line, []byte{'\n'})
	return bytes.TrimSuffix(line, []byte{'\r'}), spare, err
}

func serve(conn net.Conn) {
	defer conn.Close()
	reader, writer := bufio.NewReader(conn), bufio.NewWriter(conn)
	defer writer.Flush()
	var spare []byte
	for {
		line, kept, err := readLine(reader, spare)
		spare = kept
		if len(line) > maxMessageBytes {
			writer.Write(tooLong)
			return
		}
		if err != nil && (!errors.Is(err, io.EOF) || len(line) == 0) {
			return
		}
		if bytes.EqualFold(bytes.TrimSpace(line), exit) {
			return
		}
		if utf8.Valid(line) {
			writer.Write(received)
			writer.Write(line)
			writer.WriteByte('\n')
		} else {
			writer.Write(notUTF8)
		}
		if reader.Buffered() == 0 {
			if writer.Flush() != nil {
				return
			}
		}
	}
}

func main() {
	host := flag.String("host", "127.0.0.1", "address to listen on")
	port := flag.Int("port", 0, "port to listen on")
	certificate := flag.String("tls-certificate", "", "speak TLS with this certificate")
	key := flag.String("tls-key", "", "the certificate's key")
	flag.Parse()
	listener, err := net.Listen("tcp", fmt.Sprintf("%s:%d", *host, *port))
	if err == nil && *certificate != "" {
		var pair tls.Certificate
		if pair, err = tls.LoadX509KeyPair(*certificate, *key); err == nil {
			listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{pair}})
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("ready tcp://%s\n", listener.Addr())
	for {
		conn, err := listener.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			continue
		}
		go serve(conn)
	}
}
