"use strict";
const content = JSON.parse(document.getElementById("content").textContent);
const SVG = "http://www.w3.org/2000/svg";
const { classes, sizes, palette, pictures } = content;
const colour = (label) => palette[label % palette.length];

function made(name, parent, text) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

const filters = {};
function filter(name, choices) {
  const label = made("label", document.getElementById("filters"), name + " ");
  const select = made("select", label);
  for (const [value, text] of [["", "any"], ...choices]) made("option", select, text).value = value;
  select.name = name;
  select.addEventListener("change", show);
  filters[name] = select;
}

const count = (items) => {
  const found = new Map();
  for (const item of items) found.set(item, (found.get(item) ?? 0) + 1);
  return found;
};
const splits = count(pictures.map((p) => p.split));
const dirt = count(pictures.flatMap((p) => p.dirt));
filter("split", [...splits].map(([name, n]) => [name, `${name} (${n})`]));
filter("class", [...classes.map((name, i) => [String(i), name]), ["none", "(no box)"]]);
filter("size", sizes.map((name, i) => [String(i), name]));
filter("dirt", [["clean", "(none)"], ["some", "(some)"], ...[...dirt].map(([name, n]) => ["=" + name, `${name} (${n})`])]);
const drawn = made("input", made("label", document.getElementById("filters"), "boxes "));
drawn.type = "checkbox";
drawn.checked = true;
drawn.addEventListener("change", () => document.body.classList.toggle("plain", !drawn.checked));

const figures = pictures.map((picture) => {
  const figure = made("figure", document.getElementById("pictures"));
  const frame = made("div", figure);
  frame.className = "frame";
  const image = made("img", frame);
  [image.src, image.alt, image.width, image.height] = [picture.uri, picture.file, picture.size[1], picture.size[0]];
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${picture.size[1]} ${picture.size[0]}`);
  svg.setAttribute("preserveAspectRatio", "none");
  frame.append(svg);
  const rects = picture.boxes.map(([x1, y1, x2, y2, label, size, crowd]) => {
    const rect = document.createElementNS(SVG, "rect");
    const place = { x: x1, y: y1, width: x2 - x1, height: y2 - y1, stroke: colour(label), "vector-effect": "non-scaling-stroke" };
    for (const [key, value] of Object.entries(place)) rect.setAttribute(key, value);
    if (crowd) rect.classList.add("crowd");
    const title = document.createElementNS(SVG, "title");
    title.textContent = `${classes[label]}, ${sizes[size]}, ${(x2 - x1).toFixed(0)}x${(y2 - y1).toFixed(0)} px${crowd ? ", crowd" : ""}`;
    rect.append(title);
    svg.append(rect);
    return rect;
  });
  const caption = made("figcaption", figure, `${picture.split}, ${picture.file}, ${picture.size[1]}x${picture.size[0]}, `);
  made("span", caption, `${picture.boxes.length} box${picture.boxes.length === 1 ? "" : "es"} `);
  for (const [label, n] of count(picture.boxes.map((box) => box[4]))) {
    const chip = made("span", caption);
    chip.className = "chip";
    made("i", chip).style.background = colour(label);
    chip.append(`${classes[label]} ${n}`);
  }
  if (picture.dirt.length) made("div", caption, picture.dirt.join("; ")).className = "dirt";
  return { figure, rects, picture };
});

function show() {
  const wanted = Object.fromEntries(Object.entries(filters).map(([name, select]) => [name, select.value]));
  const choosing = (wanted.class !== "" && wanted.class !== "none") || wanted.size !== "";
  let seen = 0;
  for (const { figure, rects, picture } of figures) {
    const fits = picture.boxes.map((box) =>
      (wanted.class === "" || String(box[4]) === wanted.class) && (wanted.size === "" || String(box[5]) === wanted.size));
    const boxes = wanted.class === "none" ? picture.boxes.length === 0 : !choosing || fits.includes(true);
    const dirty = wanted.dirt === "" || (wanted.dirt === "clean" ? picture.dirt.length === 0
      : wanted.dirt === "some" ? picture.dirt.length > 0 : picture.dirt.includes(wanted.dirt.slice(1)));
    const shown = (wanted.split === "" || picture.split === wanted.split) && boxes && dirty;
    figure.hidden = !shown;
    seen += shown;
    rects.forEach((rect, i) => rect.classList.toggle("other", choosing && !fits[i]));
  }
  document.getElementById("shown").textContent = `${seen} of ${pictures.length} pictures; boxes show their class and size below the pointer`;
}
document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
show();
