"""The pages: a function for each kind of input. The only module that needs gradio.

Such a function makes the fields of a model's page, and says what is drawn when one of
them changes. `Page` calls the model in the thread of the networks, and turns a
UserError into a message on the page.
"""

from common.errors import UserError

import html
import random

import gradio as gr
import numpy as np
from starlette.middleware import Middleware  # gradio's own server

from tools.pages.canvas import canvas
from tools.pages.drawing import LARGEST_CODE, N_STEPS, Codes, Number, Sentence, Walk
from tools.pages.networks import as_picture
from tools.pages.objects import ObjectPainter
from tools.pages.painting import (
    HOLE,
    AttributeEditor,
    Enlarger,
    HoleFiller,
    MapPainter,
    Translator,
)
from tools.pages.reading import url_of

LARGEST_NEW_SEED = 9999  # of the buttons that choose a seed
PICTURE_HEIGHT = 400  # pixels of an answer on the page
SECONDS = 6  # that a message stays
# What a browser may load: the scripts, styles and pictures of the page itself.
POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
CSS = """
.gradio-container { width: 100%; max-width: 1100px !important; margin: auto; }
.picture { padding-top: 36px; }  /* for the label and the buttons, which would hide a part */
.picture .icon-button-wrapper { transform: translateY(-36px); }
.picture img { image-rendering: pixelated; }
.picture .grid-wrap { min-height: 0 !important; }
.picture .grid-container { grid-template-columns: repeat(auto-fill, minmax(84px, 1fr)) !important; }
"""


class Page:
    """What all pages share: it calls functions when something happens.

    Args:
        worker: the `Worker` of the networks.
    """

    def __init__(self, worker):
        self.worker = worker
        self.remarks = []  # of the function that the worker runs

    def remark(self, text):
        """Shows a text beside the answer of the function that calls this."""
        if text is not None:
            self.remarks.append(text)

    def run(self, function, *values):
        """A function's result, and its remarks; in the worker's thread."""
        self.remarks = []
        return function(*values), self.remarks

    def answer(self, function, *values):
        """A function's result, in any thread; after a UserError all fields stay."""
        try:
            result, remarks = self.worker.call(self.run, function, *values)
        except UserError as error:
            show_message(str(error))
            return gr.skip()
        for text in remarks:
            show_message(text)
        return result

    def on(self, events, function, inputs, outputs, only_last=False):
        """Calls a function of the inputs at each of several events.

        Args:
            only_last: of events that come faster than answers, as those of a slider,
                only the last one counts.
        """

        def handle(*values):
            return self.answer(function, *values)

        for event in events:
            event(handle, inputs, outputs, **event_options(only_last))

    def on_select(self, gallery, function, inputs, outputs):
        """Calls a function of an index and of the inputs, when a picture is chosen."""

        def handle(event: gr.SelectData, *values):
            return self.answer(function, event.index, *values)

        gallery.select(handle, inputs, outputs, **event_options(only_last=False))


def event_options(only_last):
    """All pages share one queue: the networks have one thread."""
    return {
        "show_progress": "hidden",
        "trigger_mode": "always_last" if only_last else "multiple",
        "concurrency_id": "networks",
        "concurrency_limit": 1,
        "api_visibility": "private",
    }


def show_message(text):
    """A message on the page; it may hold a visitor's words, or a file's name."""
    gr.Warning(html.escape(text), title="", duration=SECONDS)


# ---- fields that several pages have ----


def new_seed():
    return str(random.randint(0, LARGEST_NEW_SEED))


def seed_field(value, label="Seed 种子"):
    return gr.Textbox(str(value), label=label, max_lines=1)


def picture(value=None, label="Picture 图片", height=PICTURE_HEIGHT):
    return gr.Image(
        value,
        label=label,
        height=height,
        format="png",
        interactive=False,
        buttons=["download", "fullscreen"],
        elem_classes="picture",
    )


def upload_button(channels, label="Upload a picture 上传图片"):
    types = ["image"] if channels in (1, 3) else [".npy"]
    return gr.UploadButton(label, file_types=types)


def gallery(images, label="Test pictures 测试图片"):
    """Pictures to choose from; (N, C, H, W) in [-1, 1], or RGB uint8 arrays."""
    shown = [as_picture(image[None]) if image.dtype != "uint8" else image for image in images]
    return gr.Gallery(
        shown,
        label=label,
        columns=5,
        height="auto",
        object_fit="contain",
        allow_preview=False,
        format="png",
        buttons=[],
        interactive=False,
        elem_classes="picture",
    )


def first_of(images):
    """The first of test images, (1, C, H, W); None if there are none."""
    return None if images is None else images[:1]


def if_any(function, image, *values):
    """A function's result for an image, or None if there is no image."""
    return None if image is None else function(image, *values)


# ---- from noise, labels, codes and sentences ----


def walk_page(page, model):
    seed = model.args.seed
    with gr.Row():
        with gr.Column():
            with gr.Row():
                start = seed_field(seed, "From seed 起点")
                end = seed_field(seed + 1, "To seed 终点")
            position = gr.Slider(0, N_STEPS, 0, step=1, label="Walk 漫游 (%)")
            button = gr.Button("New seeds 换种子", variant="primary")
        answer = picture(model.draw(str(seed), str(seed + 1), 0))
    strip = picture(model.draw_strip(str(seed), str(seed + 1)), "On the way 途中", height=None)

    def draw_both(start, end, position):
        return model.draw(start, end, position), model.draw_strip(start, end)

    def draw_new():
        start = new_seed()
        end = new_seed()
        return start, end, 0, *draw_both(start, end, 0)

    inputs = [start, end, position]
    page.on([position.input], model.draw, inputs, answer, only_last=True)
    page.on([start.input, end.input], draw_both, inputs, [answer, strip], only_last=True)
    page.on([button.click], draw_new, None, [*inputs, answer, strip])


def number_page(page, model):
    seed = str(model.args.seed)
    number = gr.Textbox(model.example(), label="Number 数字", max_lines=1)
    seed_box = seed_field(seed)
    button = gr.Button("Other handwriting 换笔迹", variant="primary")
    answer = picture(model.draw(model.example(), seed), height=None)

    def draw_new(text):
        seed = new_seed()
        return seed, model.draw(text, seed)

    inputs = [number, seed_box]
    page.on([number.input, seed_box.input], model.draw, inputs, answer, only_last=True)
    page.on([button.click], draw_new, number, [seed_box, answer])


def codes_page(page, model):
    seed = str(model.args.seed)
    with gr.Row():
        with gr.Column():
            codes = [gr.Slider(0, model.n_categories - 1, 0, step=1, label="Category 类别")]
            for i in range(1, model.n_continuous + 1):
                label = f"Code {i} 隐编码 {i}"
                codes.append(gr.Slider(-LARGEST_CODE, LARGEST_CODE, 0, step=0.05, label=label))
            seed_box = seed_field(seed)
            button = gr.Button("Other noise 换噪声", variant="primary")
        with gr.Column():
            answer = picture(model.draw(seed, *[0] * len(codes)), height=None)

    def draw_new(*codes):
        seed = new_seed()
        return seed, model.draw(seed, *codes)

    inputs = [seed_box, *codes]
    page.on([field.input for field in inputs], model.draw, inputs, answer, only_last=True)
    page.on([button.click], draw_new, codes, [seed_box, answer])


def sentence_page(page, model):
    examples = model.examples()
    seed = str(model.args.seed)
    first = examples[0] if examples else ""
    with gr.Row():
        with gr.Column():
            text = gr.Textbox(first, label="Sentence 句子", lines=2, max_lines=4)
            with gr.Row():
                button = gr.Button("Draw 生成", variant="primary")
                other = gr.Button("Other noise 换噪声")
            seed_box = seed_field(seed)
        with gr.Column():
            answer = picture(model.draw(first, seed)[0] if first else None, height=None)

    def draw(text, seed):
        drawn, remark = model.draw(text, seed)
        page.remark(remark)
        return drawn

    def draw_new(text):
        seed = new_seed()
        return seed, draw(text, seed)

    def choose(index, seed):
        return examples[index], draw(examples[index], seed)

    inputs = [text, seed_box]
    page.on([button.click, text.submit, seed_box.input], draw, inputs, answer)
    page.on([other.click], draw_new, text, [seed_box, answer])
    if examples:
        samples = [[example] for example in examples]
        choice = gr.Dataset(components=[text], samples=samples, type="index", label="Examples 例句")
        page.on([choice.click], choose, [choice, seed_box], [text, answer])


# ---- from pictures ----


def translator_page(page, model):
    if model.palette is not None:
        outline_page(page, model)
        return
    directions = list(model.directions)
    first = first_of(model.examples[directions[0]])
    image = gr.State(first)
    with gr.Row():
        with gr.Column():
            # A radio with one choice is hidden, and still says which one it is.
            is_shown = len(directions) > 1
            direction = gr.Radio(
                directions, value=directions[0], show_label=False, visible=is_shown
            )
            upload = upload_button(model.channels)
            source = picture(if_any(as_picture, first), "Input 输入", PICTURE_HEIGHT - 100)
        answer = picture(if_any(model.draw, first, directions[0]), "Translation 翻译结果")

    def translate(image, direction):
        return image, as_picture(image), model.draw(image, direction)

    def read(path, direction):
        image, remark = model.read(path)
        page.remark(remark)
        return translate(image, direction)

    outputs = [image, source, answer]
    page.on([upload.upload], read, [upload, direction], outputs)
    page.on([direction.input], model.draw, [image, direction], answer)
    for name, images in model.examples.items():
        if images is None:
            continue

        def choose(index, direction, images=images):
            return translate(images[index : index + 1], direction)

        shown = gallery(images, f"Test pictures 测试图片 {name[:1]}")
        page.on_select(shown, choose, direction, outputs)


def outline_page(page, model):
    """A translator whose inputs are drawings, so that a visitor can draw one."""
    images = model.examples[""]
    first = images[:1]
    with gr.Row():
        with gr.Column():
            drawing = canvas(
                model.canvas_size(), model.palette, brush=model.brush(), value=model.url_of(first)
            )
            upload = upload_button(model.channels)
        answer = picture(model.draw(first))

    def draw(url):
        return model.draw(model.read_drawing(url))

    def show(image):
        return model.url_of(image), model.draw(image)

    def read(path):
        image, remark = model.read(path)
        page.remark(remark)
        return show(image)

    def choose(index):
        return show(images[index : index + 1])

    page.on([drawing.input], draw, drawing, answer, only_last=True)
    page.on([upload.upload], read, upload, [drawing, answer])
    page.on_select(gallery(images), choose, None, [drawing, answer])


def hole_page(page, model):
    """A picture on which a visitor brushes the hole; or an upload, and its mask."""
    image, hole = (None, None) if model.examples is None else model.example(0)
    shown = if_any(model.url_of, image, hole)
    source = gr.State(image)
    with gr.Row():
        with gr.Column():
            drawing = canvas(
                model.canvas_size(), np.uint8([HOLE]), ["Hole 洞"], brush=24, value=shown
            )
            upload = upload_button(model.channels)
            upload_mask = upload_button(1, "Upload its mask 上传蒙版")
        answer = picture(if_any(model.draw, image, hole), "Filled 填补结果")

    def draw(url, image):
        return model.draw(image, model.read_drawing(url))

    def show(image, hole):
        filled = model.draw(image, hole) if hole.any() else None
        return image, model.url_of(image, hole), filled

    def read(path):
        image, hole, remark = model.read(path)
        page.remark(remark)
        return show(image, hole)

    def read_mask(path, image):
        if image is None:
            raise UserError("Choose a picture first.")
        return show(image, model.read_mask(path))

    def choose(index):
        return show(*model.example(index))

    outputs = [source, drawing, answer]
    page.on([drawing.input], draw, [drawing, source], answer, only_last=True)
    page.on([upload.upload], read, upload, outputs)
    page.on([upload_mask.upload], read_mask, [upload_mask, source], outputs)
    if model.examples is not None:
        page.on_select(gallery(model.examples[0]), choose, None, outputs)


def enlarger_page(page, model):
    first = first_of(model.examples)
    bicubic, large = if_any(model.draw, first) or (None, None)
    with gr.Row():
        with gr.Column():
            upload = upload_button(model.channels)
            source = picture(if_any(as_picture, first), "Input 输入", PICTURE_HEIGHT - 100)
        with gr.Column():
            answer = picture(large, "Enlarged 放大结果")
            usual = picture(bicubic, "Bicubic 双三次插值")

    def enlarge(image):
        bicubic, large = model.draw(image)
        return as_picture(image), large, bicubic

    def read(path):
        image, remark = model.read(path)
        page.remark(remark)
        return enlarge(image)

    def choose(index):
        return enlarge(model.examples[index : index + 1])

    outputs = [source, answer, usual]
    page.on([upload.upload], read, upload, outputs)
    if model.examples is not None:
        page.on_select(gallery(model.examples), choose, None, outputs)


def attribute_page(page, model):
    first = first_of(model.examples)
    values = [0] * len(model.names) if first is None else model.found(first)
    image = gr.State(first)
    with gr.Row():
        with gr.Column():
            upload = upload_button(model.channels)
            source = picture(if_any(as_picture, first), "Input 输入", PICTURE_HEIGHT - 100)
        with gr.Column():
            answer = picture(if_any(model.draw, first, *values), "Translation 翻译结果")
            sliders = []
            for name, value in zip(model.names, values):
                sliders.append(gr.Slider(0, 1, value, step=0.05, label=name))

    def start(image):
        values = model.found(image)
        return image, as_picture(image), model.draw(image, *values), *values

    def read(path):
        image, remark = model.read(path)
        page.remark(remark)
        return start(image)

    def choose(index):
        return start(model.examples[index : index + 1])

    outputs = [image, source, answer, *sliders]
    page.on([upload.upload], read, upload, outputs)
    for index, slider in enumerate(sliders):

        def move(image, *values, index=index):
            values = model.moved(index, values)
            return model.draw(image, *values), *values

        page.on([slider.input], move, [image, *sliders], [answer, *sliders], only_last=True)
    if model.examples is not None:
        page.on_select(gallery(model.examples), choose, None, outputs)


def map_page(page, model):
    style = gr.State()
    seed = str(model.args.seed)
    first = None if model.maps is None else url_of(model.coloured(model.maps[0]))
    with gr.Row():
        with gr.Column():
            drawing = canvas(model.canvas_size(), model.colours, model.names, 0, 3, first)
        with gr.Column():
            answer = picture(model.draw(first, seed) if first else None)
            seed_box = seed_field(seed, "Seed of the style 风格种子")
            button = gr.Button("Random style 随机风格", variant="primary")
            upload = upload_button(model.args.channels, "Upload a style 上传风格图片")
            shown_style = picture(label="Style 风格", height=150)

    def draw_random(url, seed):
        return model.draw(url, seed), None, None

    def draw_new(url):
        seed = new_seed()
        return seed, *draw_random(url, seed)

    def read_style(path, url, seed):
        image, remark = model.read(path)
        page.remark(remark)
        return in_style(model, url, seed, image)

    styled = [answer, style, shown_style]
    page.on([drawing.input], model.draw, [drawing, seed_box, style], answer, only_last=True)
    page.on([seed_box.input], draw_random, [drawing, seed_box], styled, only_last=True)
    page.on([button.click], draw_new, drawing, [seed_box, *styled])
    page.on([upload.upload], read_style, [upload, drawing, seed_box], styled)
    if model.maps is not None:
        map_examples(page, model, drawing, seed_box, styled)


def in_style(model, url, seed, image):
    """The painting of a map in the style of an image, the image, and its picture."""
    return model.draw(url, seed, image), image, as_picture(image)


def map_examples(page, model, drawing, seed_box, styled):
    """The test split of a map's page: maps to paint on, and pictures as styles.

    Args:
        styled: the fields of the painting, of the style, and of the style's picture.
    """
    answer, style, _ = styled

    def choose_map(index, seed, image):
        url = url_of(model.coloured(model.maps[index]))
        return url, model.draw(url, seed, image)

    def choose_style(index, url, seed):
        return in_style(model, url, seed, model.images[index : index + 1])

    maps = gallery([model.coloured(one) for one in model.maps], "Test maps 测试标签图")
    page.on_select(maps, choose_map, [seed_box, style], [drawing, answer])
    styles = gallery(model.images, "Styles 风格图片")
    page.on_select(styles, choose_style, [drawing, seed_box], styled)


def object_page(page, model):
    """Maps with looks of objects: a seed for all of them, and another one for each."""
    seed = str(model.args.seed)
    nothing = [0] * len(model.names)
    changes = gr.State(nothing)
    first = None if model.maps is None else url_of(model.coloured(model.maps[0]))
    with gr.Row():
        with gr.Column():
            drawing = canvas(model.canvas_size(), model.colours, model.names, 0, 3, first)
        with gr.Column():
            answer = picture(model.draw(first, seed) if first else None)
            seed_box = seed_field(seed, "Seed of the looks 外观种子")
            button = gr.Button("Random looks 随机外观", variant="primary")
            chosen = gr.Dropdown(model.names, value=model.names[-1], label="Object 物体")
            other = gr.Button("Another look for this object 换这个物体的外观")

    def draw_random(url, seed):
        return model.draw(url, seed), nothing

    def draw_new(url):
        seed = new_seed()
        return seed, *draw_random(url, seed)

    def change(url, seed, name, changes):
        changes = list(changes)
        changes[model.entry_of(name)] += 1
        return model.draw(url, seed, changes), changes

    page.on([drawing.input], model.draw, [drawing, seed_box, changes], answer, only_last=True)
    page.on([seed_box.input], draw_random, [drawing, seed_box], [answer, changes], only_last=True)
    page.on([button.click], draw_new, drawing, [seed_box, answer, changes])
    page.on([other.click], change, [drawing, seed_box, chosen, changes], [answer, changes])
    if model.maps is None:
        return
    shown = gallery([model.coloured(entries) for entries in model.maps], "Test maps 测试标签图")

    def choose(index, seed, changes):
        url = url_of(model.coloured(model.maps[index]))
        return url, model.draw(url, seed, changes)

    page.on_select(shown, choose, [seed_box, changes], [drawing, answer])


# ---- all pages of a call ----

PAGES = {  # {class of the model: (its page, what to do there)}
    Walk: (walk_page, "Walk from one seed to another. 拖动滑块，从一个种子走到另一个。"),
    Number: (number_page, "Write a number. 写一串数字。"),
    Codes: (codes_page, "Drag the codes. 拖动滑块，改变隐编码。"),
    Sentence: (sentence_page, "Write a sentence. 写一句话。"),
    Translator: (translator_page, "Choose a picture. 选一张图片。"),
    HoleFiller: (hole_page, "Brush the hole. 涂出要填补的地方。"),
    Enlarger: (enlarger_page, "Choose a small picture. 选一张小图片。"),
    AttributeEditor: (
        attribute_page,
        "Choose a picture, then drag its attributes. 选一张图片，再拖动属性。",
    ),
    MapPainter: (map_page, "Paint a map. 画标签图。"),
    ObjectPainter: (object_page, "Paint a map; each colour is an object. 画图：一种颜色一个物体。"),
}
DRAW = "Draw, or choose a picture. 画一幅，或选一张图片。"


def blocks(models, worker):
    """The app with a page for each model of {title: model}.

    Args:
        worker: the `Worker` of their networks.
    """
    page = Page(worker)
    with gr.Blocks(title="Generative models for Jittor", analytics_enabled=False) as app:
        if len(models) == 1:
            for model in models.values():
                add_page(page, model)
        else:
            with gr.Tabs():
                for title, model in models.items():
                    with gr.Tab(title):
                        add_page(page, model)
    return app


def add_page(page, model):
    build, hint = PAGES[type(model)]
    if getattr(model, "palette", None) is not None:
        hint = DRAW
    gr.Markdown(f"### {model.args.script}.py\n\n{hint}")
    build(page, model)


def with_policy(app):
    """An app whose answers forbid the browser to load anything from elsewhere."""

    async def answer(scope, receive, send):
        async def send_with_policy(message):
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", POLICY),
                ]
            await send(message)

        await app(scope, receive, send_with_policy)

    return answer


def launch_options():
    """What every page is opened with: it loads nothing from elsewhere."""
    fonts = {"font": ["sans-serif"], "font_mono": ["monospace"]}
    return {
        "theme": gr.themes.Default(**fonts),
        "css": CSS,
        "app_kwargs": {"middleware": [Middleware(with_policy)]},
        "footer_links": [],
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "enable_monitoring": False,
        "num_workers": 0,
        "max_file_size": "200mb",
        "prevent_thread_lock": True,
        "quiet": True,
    }
