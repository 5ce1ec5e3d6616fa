/* Runs a network that `smallcnn compile --target browser` wrote: in a browser, a worker, or Node.

       import { load } from "./smallcnn.js";

       const net = await load("flowers.wasm");
       const [best] = net.answer(document.querySelector("img"));   // or a video, canvas, ImageBitmap
       console.log(best.label, best.probability);

   The module has no dependencies. A net computes one image at a time, on the thread that calls it. */

const PAGE = 65536;
const ARRAYS = [Float32Array, Uint8Array, Int8Array, Int32Array]; // by the number type of an output

/** A network, from the address of a .wasm file, a fetch's Response, or its bytes. */
export async function load(source) {
    let content = source;
    if (typeof source === "string" || source instanceof URL) content = await fetch(source);
    if (typeof Response !== "undefined" && content instanceof Response) {
        if (!content.ok) throw new Error(`${content.url}: ${content.status} ${content.statusText}`);
        content = await content.arrayBuffer();
    }
    const { instance } = await WebAssembly.instantiate(content, {});
    return new Net(instance.exports);
}

class Net {
    #exports;
    #context;
    #image;
    #places;
    #end;

    constructor(exports) {
        if (!exports.smallcnn_run) throw new Error("no network compiled by smallcnn");
        this.#exports = exports;
        this.height = exports.smallcnn_height();
        this.width = exports.smallcnn_width();
        this.channels = exports.smallcnn_channels();
        const metadata = JSON.parse(this.#text(exports.smallcnn_metadata()));
        /** What the file says of itself: `task`, `preprocessing`, `facts`, ... */
        this.metadata = Object.fromEntries(
            Object.entries(metadata).map(([key, value]) => [key.replace("smallcnn.", ""), parsed(value)]),
        );

        this.#end = exports.__heap_base.value; // everything lies behind the module's own data
        const count = exports.smallcnn_output_count();
        const shape = this.#take(12);
        const handle = this.#take(4);
        const bytes = exports.smallcnn_memory(1);
        const memory = this.#take(bytes);
        this.#image = this.#take(this.height * this.width * this.channels);
        this.#places = this.#take(4 * count);
        /** Name, shape and number type of each output. */
        this.outputs = [];
        for (let i = 0; i < count; i++) {
            const dimensions = exports.smallcnn_output_shape(i, shape);
            const sizes = [...new Int32Array(exports.memory.buffer, shape, dimensions)];
            const kind = ARRAYS[exports.smallcnn_output_number(i)];
            const length = sizes.reduce((product, size) => product * size, 1);
            const at = this.#take(length * kind.BYTES_PER_ELEMENT);
            new Int32Array(exports.memory.buffer, this.#places, count)[i] = at;
            const [scale, zero] = [exports.smallcnn_output_scale(i), exports.smallcnn_output_zero(i)];
            const name = this.#text(exports.smallcnn_output_name(i));
            this.outputs.push({ name, shape: sizes, kind, length, at, scale, zero });
        }
        this.#checked(exports.smallcnn_create_in(memory, bytes, handle));
        [this.#context] = new Int32Array(exports.memory.buffer, handle, 1);
    }

    /** The outputs by name, of an image at the network's size: bytes, row by row, channels together, red first. */
    run(pixels) {
        if (pixels.length !== this.height * this.width * this.channels)
            throw new Error(`needs ${this.height} x ${this.width} x ${this.channels} bytes, not ${pixels.length}`);
        const { memory } = this.#exports;
        new Uint8Array(memory.buffer, this.#image, pixels.length).set(pixels);
        this.#checked(this.#exports.smallcnn_run(this.#context, this.#image, this.#places));
        const results = {};
        for (const { name, kind, length, at, scale, zero } of this.outputs) {
            const stored = new kind(memory.buffer, at, length);
            results[name] = scale ? Float32Array.from(stored, (number) => scale * (number - zero)) : stored.slice();
        }
        return results;
    }

    /** What the network says of an image, video frame or canvas, or of pixels as `pixelsOf` returns them.

        A classifier: labels with their probability (its score, if it has no ending), best first. Attributes: the same,
        with the `question` that a label answers. A detector: label, score, left, top, right, bottom in pixels. */
    answer(image) {
        const source = image.data ? image : pixelsOf(image, this.metadata.preprocessing);
        const { pixels, seen } = prepared(source, this.metadata.preprocessing);
        return answers(this.metadata.task, this.run(pixels), seen, source);
    }

    /** What a detector keeps from now on: a negative number is that of the file. */
    limit(threshold, overlap = -1, most = -1) {
        this.#checked(this.#exports.smallcnn_limit(this.#context, threshold, overlap, most));
    }

    /** The difference of the answer to the probe image from the one that the file carries, as a share of its largest
        number; about 1e-6 where floats are computed. A larger one means that this browser computes wrongly. Null for a
        detector, whose near ties may fall either way. */
    error() {
        const { probe } = this.metadata;
        if ("possible" in probe) return null;
        const image = new Uint8Array(this.height * this.width * this.channels);
        for (let i = 0; i < image.length; i++) image[i] = Number(((BigInt(i) * 2654435761n) >> 13n) & 255n);
        const got = this.run(image);
        const errors = Object.entries(probe).map(([name, answer]) => {
            const wanted = [answer].flat(Infinity);
            const off = wanted.map((number, i) => Math.abs(got[name][i] - number));
            return Math.max(...off) / Math.max(...wanted.map(Math.abs));
        });
        return Math.max(...errors);
    }

    #take(bytes) {
        const at = (this.#end + 7) & ~7;
        this.#end = at + bytes;
        const missing = this.#end - this.#exports.memory.buffer.byteLength;
        if (missing > 0) this.#exports.memory.grow(Math.ceil(missing / PAGE));
        return at;
    }

    #text(at) {
        const bytes = new Uint8Array(this.#exports.memory.buffer);
        return new TextDecoder().decode(bytes.subarray(at, bytes.indexOf(0, at)));
    }

    #checked(error) {
        if (error) throw new Error(this.#text(this.#exports.smallcnn_error(error)));
    }
}

function parsed(text) {
    try {
        return JSON.parse(text);
    } catch {
        return text;
    }
}

/** The pixels of an image, video frame or canvas as {width, height, data: RGBA, of: [width, height] of the original},
    over white; of a large one the browser makes a smaller one first, whose shorter side is twice what the network sees. */
export function pixelsOf(image, { size, crop }) {
    const width = image.naturalWidth || image.videoWidth || image.width;
    const height = image.naturalHeight || image.videoHeight || image.height;
    const scale = Math.min(1, (2 * Math.max(...size)) / crop / Math.min(width, height));
    const canvas = new OffscreenCanvas(Math.ceil(width * scale), Math.ceil(height * scale));
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    return { ...fields(context.getImageData(0, 0, canvas.width, canvas.height)), of: [width, height] };
}

const fields = ({ width, height, data }) => ({ width, height, data });

/** Pixels at the network's size, fitted as in training (docs/data.md, "One way to resize"), and the part `seen` of the
    image along x and y: [start, end] of the network's input, in pixels of the original. */
export function prepared({ width, height, data, of = [width, height] }, preprocessing) {
    const { size, mean, crop, interpolation, fit = "crop", order } = preprocessing;
    const [rows, columns] = size;
    const channels = mean.length;
    let scales = [width / columns, height / rows];
    if (fit !== "stretch") scales = Array(2).fill(fit === "crop" ? Math.min(...scales) : Math.max(...scales));
    const [across, down] = [
        [width, columns, scales[0], of[0]],
        [height, rows, scales[1], of[1]],
    ].map(([length, pixels, scale, whole]) => placed(length, pixels, scale * crop, whole / length));

    const [values, step] = channels === 1 ? [grey(data), 1] : [data, 4];
    const border = (order === "bgr" ? [...mean].reverse() : mean).map((value) =>
        Math.min(Math.max(Math.floor(255 * value + 0.5), 0), 255),
    );
    const pixels = new Uint8Array(rows * columns * channels);
    for (let i = 0; i < pixels.length; i++) pixels[i] = border[i % channels];
    const [x, y] = [weightsOf(across, width, interpolation), weightsOf(down, height, interpolation)];
    for (let c = 0; c < channels; c++) {
        const wide = new Uint8ClampedArray(x.length * height); // rows of the image, as wide as the input
        for (let row = 0; row < height; row++)
            for (let i = 0; i < x.length; i++) {
                const { first, weights } = x[i];
                let sum = 0;
                for (let j = 0; j < weights.length; j++)
                    sum += weights[j] * values[(row * width + first + j) * step + c];
                wide[row * x.length + i] = Math.floor(sum + 0.5);
            }
        y.forEach(({ first, weights }, row) => {
            for (let i = 0; i < x.length; i++) {
                let sum = 0;
                for (let j = 0; j < weights.length; j++) sum += weights[j] * wide[(first + j) * x.length + i];
                const at = (row + down.first) * columns + i + across.first;
                pixels[at * channels + c] = Math.min(Math.max(Math.floor(sum + 0.5), 0), 255);
            }
        });
    }
    return { pixels, seen: { x: across.seen, y: down.seen } };
}

function grey(data) {
    const plane = new Uint8Array(data.length / 4);
    for (let i = 0; i < plane.length; i++)
        plane[i] = (19595 * data[4 * i] + 38470 * data[4 * i + 1] + 7471 * data[4 * i + 2] + 0x8000) >> 16;
    return plane;
}

/** Along one side: the visible part of the image, the pixels of the input from `first` to `last` that show it, and the
    part of the original that the whole input shows. */
function placed(length, pixels, scale, factor) {
    const kept = pixels * scale;
    const [start, end] = [(length - kept) / 2, (length + kept) / 2];
    const visible = [Math.max(start, 0), Math.min(end, length)];
    let [first, last] = visible.map((edge) => Math.floor(((edge - start) / kept) * pixels + 0.500001));
    first = Math.min(first, pixels - 1);
    last = Math.max(last, first + 1);
    const each = (visible[1] - visible[0]) / (last - first);
    const seen = [visible[0] - first * each, visible[1] + (pixels - last) * each].map((edge) => edge * factor);
    return { visible, first, last, seen };
}

const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
const FILTERS = {
    bilinear: { support: 1, at: (x) => Math.max(1 - Math.abs(x), 0) },
    bicubic: {
        support: 2,
        at: (x) => {
            const d = Math.abs(x);
            if (d < 1) return (1.5 * d - 2.5) * d * d + 1;
            return d < 2 ? ((-0.5 * d + 2.5) * d - 4) * d + 2 : 0;
        },
    },
    lanczos: { support: 3, at: (x) => (Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

/** For each pixel of the input that shows the image, where it reads along one side and with which weights; as Pillow's
    antialiasing filters. */
function weightsOf({ visible: [start, end], first, last }, length, interpolation) {
    const { support, at } = FILTERS[interpolation];
    const scale = (end - start) / (last - first);
    const stretch = Math.max(scale, 1);
    return Array.from({ length: last - first }, (_, i) => {
        const centre = start + (i + 0.5) * scale;
        const from = Math.max(Math.floor(centre - support * stretch + 0.5), 0);
        const to = Math.min(Math.floor(centre + support * stretch + 0.5), length);
        const weights = Array.from({ length: to - from }, (_, j) => at((from + j - centre + 0.5) / stretch));
        const total = weights.reduce((sum, weight) => sum + weight, 0);
        return { first: from, weights: weights.map((weight) => weight / total) };
    });
}

/** Outputs in words, by the task of the file (docs/files.md). */
function answers(task, outputs, seen, { width, height, of = [width, height] }) {
    if (task.kind === "detection") return objects(task, outputs, seen, of);
    const [logits] = Object.values(outputs);
    const values = probabilities(task.ending ?? "sigmoid", logits);
    const question = {};
    for (const [name, labels] of Object.entries(task.choices ?? {})) for (const label of labels) question[label] = name;
    return task.labels
        .map((label, i) => ({ label, probability: values[i], ...(label in question && { question: question[label] }) }))
        .sort((one, other) => other.probability - one.probability);
}

function probabilities(ending, logits) {
    if (ending === "none") return [...logits];
    if (ending === "sigmoid") return Array.from(logits, (logit) => 1 / (1 + Math.exp(-logit)));
    const largest = Math.max(...logits);
    const powers = Array.from(logits, (logit) => Math.exp(logit - largest));
    const total = powers.reduce((sum, power) => sum + power, 0);
    return powers.map((power) => power / total);
}

function objects(task, { boxes, scores, classes, count }, { x, y }, [width, height]) {
    return Array.from({ length: Math.round(count[0]) }, (_, i) => {
        const place = (edge, [start, end], most) =>
            Math.min(Math.max(start + boxes[4 * i + edge] * (end - start), 0), most);
        return {
            label: task.labels[classes[i]],
            score: scores[i],
            left: place(0, x, width),
            top: place(1, y, height),
            right: place(2, x, width),
            bottom: place(3, y, height),
        };
    });
}
