"""Pages that the tests parse."""

import html.parser


class Page(html.parser.HTMLParser):
    """Checks that tags close in the order they open, and collects tags, names of attributes and the text."""

    void = ("meta", "img", "br", "use", "path", "rect", "input")

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.tags, self.attributes = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if tag not in self.void:
            while self.open[-1] in ("li", "td", "th", "tr") and self.open[-1] != tag:
                self.open.pop()
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
