// blobclient reads and writes blobs over gRPC, each stream on a connection of its own, and prints how long that took.
//
// It speaks tvix.castore.v1.BlobService in raw messages: it measures the server, so it does as little as it can itself.
package main

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

const (
	service    = "/tvix.castore.v1.BlobService/"
	digestTag  = 0x0a // field 1, length-delimited: ReadBlobRequest.digest, BlobChunk.data
	messageLen = 1 << 20
	bufferSize = 4 << 20 // of the connection and of its streams: with grpc-go's own, the client takes a third longer than the server
)

func main() {
	log.SetFlags(0)
	address := flag.String("address", "", "host:port of the server")
	digest := flag.String("digest", "", "BLAKE3 digest, in hexadecimal, of the blob that is read")
	size := flag.Int64("size", 0, "bytes of every blob, read or written")
	readers := flag.Int("readers", 0, "streams that read")
	writers := flag.Int("writers", 0, "streams that write, each another blob of random bytes")
	flag.Parse()

	start := time.Now()
	if err := run(*address, *digest, *size, *readers, *writers); err != nil {
		log.Fatal(err)
	}
	err := json.NewEncoder(os.Stdout).Encode(map[string]float64{"seconds": time.Since(start).Seconds()})
	if err != nil {
		log.Fatal(err)
	}
}

func run(address, digest string, size int64, readers, writers int) error {
	raw, err := hex.DecodeString(digest)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(context.Background())
	for range readers {
		group.Go(func() error { return read(ctx, address, raw, size) })
	}
	for range writers {
		group.Go(func() error { return write(ctx, address, size) })
	}
	return group.Wait()
}

func read(ctx context.Context, address string, digest []byte, size int64) error {
	stream, closeAll, err := open(ctx, address, "Read", &grpc.StreamDesc{ServerStreams: true})
	if err != nil {
		return err
	}
	defer closeAll()
	if err := stream.SendMsg(mem.BufferSlice{mem.SliceBuffer(field(digest))}); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	var received int64
	for {
		var length int64
		if err := stream.RecvMsg(&length); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		received += length
	}
	if received != size {
		return fmt.Errorf("received %d bytes of %d", received, size)
	}
	return nil
}

func write(ctx context.Context, address string, size int64) error {
	stream, closeAll, err := open(ctx, address, "Put", &grpc.StreamDesc{ClientStreams: true})
	if err != nil {
		return err
	}
	defer closeAll()
	seed := [32]byte{}
	binary.LittleEndian.PutUint64(seed[:], rand.Uint64())
	random := rand.NewChaCha8(seed)
	for left := size; left > 0; {
		data := make([]byte, min(left, messageLen))
		random.Read(data)
		left -= int64(len(data))
		if err := stream.SendMsg(mem.BufferSlice{mem.SliceBuffer(field(data))}); errors.Is(err, io.EOF) {
			break // RecvMsg knows why
		} else if err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	var length int64
	return stream.RecvMsg(&length)
}

func open(ctx context.Context, address, method string, description *grpc.StreamDesc) (grpc.ClientStream, func() error, error) {
	connection, err := grpc.NewClient(
		address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithReadBufferSize(bufferSize),
		grpc.WithInitialWindowSize(bufferSize),
		grpc.WithInitialConnWindowSize(bufferSize),
	)
	if err != nil {
		return nil, nil, err
	}
	stream, err := connection.NewStream(ctx, description, service+method, grpc.ForceCodecV2(raw{}))
	if err != nil {
		return nil, nil, errors.Join(err, connection.Close())
	}
	return stream, connection.Close, nil
}

// field is a message whose only field is field 1, with these bytes.
func field(data []byte) []byte {
	return append(binary.AppendUvarint(append(make([]byte, 0, len(data)+8), digestTag), uint64(len(data))), data...)
}

// raw sends messages as they are, and tells of received ones only how many bytes field 1, their only field, has.
type raw struct{}

var _ encoding.CodecV2 = raw{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(message any) (mem.BufferSlice, error) {
	return message.(mem.BufferSlice), nil
}

func (raw) Unmarshal(data mem.BufferSlice, length any) error {
	head := make([]byte, min(data.Len(), 1+binary.MaxVarintLen64))
	if _, err := data.Reader().Read(head); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if len(head) == 0 {
		return nil
	}
	stated, n := binary.Uvarint(head[1:])
	if head[0] != digestTag || n <= 0 || 1+n+int(stated) != data.Len() {
		return fmt.Errorf("not a message with field 1 alone: it begins with %x and has %d bytes", head, data.Len())
	}
	*length.(*int64) = int64(stated)
	return nil
}
