// A canvas for a mouse or a finger. gradio calls this text as a function of
//   element  the component's element, with the content of canvas.html
//   props    width, height, colours (texts such as "#ff0000"), names (of the colours, or
//            empty), ground (the index of the colour of an empty canvas), brush (the
//            diameter at the start, in pixels), largest (the largest diameter), and
//            value, the picture as a data URL
//   trigger  tells the server of a new value
//   watch    calls back when the server sets a value
// Nothing is smoothed: every pixel has one of the colours. If there is only one, it is
// brushed on the picture that the server sets, and "Clear" brings this picture back.
const canvas = element.querySelector("canvas");
const context = canvas.getContext("2d", { willReadFrequently: true });
const palette = element.querySelector(".palette");
const brush = element.querySelector(".brush");
const fill = element.querySelector(".fill");
const MOST_UNDONE = 20;
let colour = props.colours.length > 1 ? 1 - Math.min(props.ground, 1) : 0;
let last = null; // where the pointer was, while it draws
let undone = []; // earlier contents, the newest last
let base = null; // the last picture of the server

canvas.width = props.width;
canvas.height = props.height;
brush.max = props.largest;
brush.value = props.brush;

// ---- palette ----

function choose(index) {
  colour = index;
  [...palette.children].forEach((button, i) => button.setAttribute("aria-checked", i === index));
}

props.colours.forEach((text, i) => {
  const button = document.createElement("button");
  const dot = document.createElement("span");
  button.type = "button";
  button.setAttribute("role", "radio");
  button.setAttribute("aria-label", props.names[i] || text);
  dot.className = "dot";
  dot.style.background = text;
  button.append(dot, props.names[i] || "");
  button.addEventListener("click", () => choose(i));
  palette.append(button);
});
choose(colour);

// ---- content ----

function wipe() {
  if (base !== null && props.colours.length === 1) {
    context.drawImage(base, 0, 0);
    return;
  }
  context.fillStyle = props.colours.length === 1 ? "#ffffff" : props.colours[props.ground];
  context.fillRect(0, 0, canvas.width, canvas.height);
}

function remember() {
  undone.push(context.getImageData(0, 0, canvas.width, canvas.height));
  if (undone.length > MOST_UNDONE) undone.shift();
}

function send() {
  props.value = canvas.toDataURL("image/png");
  trigger("input");
}

function show(url) {
  if (!url) {
    wipe();
    return;
  }
  const picture = new Image();
  picture.onload = () => {
    base = picture;
    wipe();
    context.drawImage(picture, 0, 0);
  };
  picture.src = url;
}

// ---- strokes ----

function place(event) {
  const box = canvas.getBoundingClientRect();
  const x = ((event.clientX - box.left) / box.width) * canvas.width;
  const y = ((event.clientY - box.top) / box.height) * canvas.height;
  return { x, y };
}

function dot(x, y) {
  const radius = Number(brush.value) / 2;
  for (let row = Math.floor(y - radius); row <= y + radius; row++) {
    const up = row + 0.5 - y;
    const half = Math.sqrt(Math.max(radius * radius - up * up, 0));
    const left = Math.round(x - half);
    const width = Math.max(Math.round(x + half) - left, Math.abs(up) <= 0.5 ? 1 : 0);
    context.fillRect(left, row, width, 1);
  }
}

function line(from, to) {
  const steps = Math.max(1, Math.ceil(Math.hypot(to.x - from.x, to.y - from.y)));
  for (let i = 0; i <= steps; i++) {
    dot(from.x + ((to.x - from.x) * i) / steps, from.y + ((to.y - from.y) * i) / steps);
  }
}

function flood(start) {
  const image = context.getImageData(0, 0, canvas.width, canvas.height);
  const pixels = new Uint32Array(image.data.buffer);
  const at = Math.floor(start.y) * canvas.width + Math.floor(start.x);
  const old = pixels[at];
  context.fillRect(Math.floor(start.x), Math.floor(start.y), 1, 1);
  const one = context.getImageData(Math.floor(start.x), Math.floor(start.y), 1, 1);
  const fresh = new Uint32Array(one.data.buffer)[0];
  if (old === fresh) return;
  const waiting = [at];
  while (waiting.length) {
    const i = waiting.pop();
    if (pixels[i] !== old) continue;
    pixels[i] = fresh;
    const x = i % canvas.width;
    if (x > 0) waiting.push(i - 1);
    if (x < canvas.width - 1) waiting.push(i + 1);
    if (i >= canvas.width) waiting.push(i - canvas.width);
    if (i < pixels.length - canvas.width) waiting.push(i + canvas.width);
  }
  context.putImageData(image, 0, 0);
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  event.preventDefault();
  canvas.setPointerCapture(event.pointerId);
  remember();
  context.fillStyle = props.colours[colour];
  if (fill.checked) {
    flood(place(event));
    send();
    return;
  }
  last = place(event);
  line(last, last);
});

canvas.addEventListener("pointermove", (event) => {
  if (last === null) return;
  const here = place(event);
  line(last, here);
  last = here;
});

function end() {
  if (last === null) return;
  last = null;
  send();
}

canvas.addEventListener("pointerup", end);
canvas.addEventListener("pointercancel", end);

element.querySelector(".undo").addEventListener("click", () => {
  if (!undone.length) return;
  context.putImageData(undone.pop(), 0, 0);
  send();
});

element.querySelector(".clear").addEventListener("click", () => {
  remember();
  wipe();
  send();
});

show(props.value);
watch("value", () => {
  remember();
  show(props.value);
});
