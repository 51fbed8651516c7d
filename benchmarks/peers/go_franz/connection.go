package main

import (
	"bytes"
	"net/http"
	"sync"

	"github.com/gorilla/websocket"
)

// Bytes of one message.
const readLimit = 64 * 1024

// The server hardly writes, so connections share their write buffers. Frames are not compressed.
var upgrader = websocket.Upgrader{WriteBufferPool: &sync.Pool{}}

// accept upgrades a connection and returns: a goroutine of its own lets go of all that the HTTP request holds.
func accept(w http.ResponseWriter, r *http.Request, work *work, out *producer) {
	query := r.URL.Query()
	user, company := query.Get("user"), query.Get("company")
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // Upgrade has answered.
	}
	conn.SetReadLimit(readLimit)
	go read(conn, user, company, work, out)
}

// read passes on each binary message until the connection ends.
func read(conn *websocket.Conn, user, company string, work *work, out *producer) {
	defer conn.Close()
	key := []byte(user)
	var frame bytes.Buffer // One for all messages: nothing keeps a frame.
	for {
		kind, reader, err := conn.NextReader()
		if err != nil {
			return
		}
		frame.Reset()
		if _, err := frame.ReadFrom(reader); err != nil {
			return
		}
		if kind != websocket.BinaryMessage {
			continue
		}
		topic, value, err := work.prepare(frame.Bytes(), user, company)
		if err != nil {
			continue
		}
		if !out.send(topic, key, value) {
			return
		}
	}
}
