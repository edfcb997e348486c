//! A picture as inline SVG: a frame with two scales, and what is drawn in it.
//!
//! Colours and fonts are the page's. Invariant: a picture says in words what it shows, and every text is escaped.

use std::fmt::{self, Write};

use super::axis::Scale;

/// Size of a picture, in units of its own. To the right of the frame is room for half of the last tick's label.
const WIDTH: f64 = 784.0;
const HEIGHT: f64 = 320.0;
/// Left and right end of the frame.
pub(super) const ACROSS: (f64, f64) = (64.0, 744.0);
/// Bottom and top end of the frame: a scale upwards.
pub(super) const UPWARDS: (f64, f64) = (268.0, 64.0);
/// Baseline of the first line of text above the frame, and from one line to the next.
const ABOVE: f64 = 16.0;
const LINE: f64 = 14.0;
/// Room for a name above the frame.
const NAME: f64 = 170.0;

/// Text as it may stand in HTML and SVG, between tags and in quotes. Control characters are shown escaped.
pub(super) struct Text<'a>(pub(super) &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                control if control.is_control() => write!(f, "{}", control.escape_unicode())?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// A scale with its name and the form of its ticks.
pub(super) struct Axis<'a> {
    pub(super) scale: &'a Scale,
    pub(super) name: &'a str,
    pub(super) tick: fn(f64) -> String,
}

/// An SVG element in the making.
pub(super) struct Picture {
    text: String,
    /// Names above the frame.
    names: u32,
}

impl Picture {
    /// An empty frame. `id` is the picture's own on its page and is plain letters and digits.
    pub(super) fn new(id: &str, title: &str, description: &str, across: &Axis<'_>, upwards: &Axis<'_>) -> Self {
        let mut picture = Self { text: String::new(), names: 0 };
        picture.put(format_args!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"{id}t {id}d\">\n\
             <title id=\"{id}t\">{}</title>\n<desc id=\"{id}d\">{}</desc>\n",
            Text(title),
            Text(description)
        ));
        picture.axes(across, upwards);
        picture
    }

    /// A line through points of the frame; `shape` is 0 to 3 and gives its colour and dashes.
    pub(super) fn line(&mut self, shape: usize, points: impl Iterator<Item = (f64, f64)>) {
        self.put(format_args!("<path class=\"line s{shape}\" d=\""));
        for (index, (x, y)) in points.enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            self.put(format_args!("{command}{x:.1} {y:.1}"));
        }
        self.put(format_args!("\"/>\n"));
    }

    /// Bars that stand on the bottom of the frame: left end, right end and top of each.
    pub(super) fn bars(&mut self, bars: impl Iterator<Item = (f64, f64, f64)>) {
        let bottom = UPWARDS.0;
        self.put(format_args!("<path class=\"bar\" d=\""));
        for (left, right, top) in bars {
            self.put(format_args!("M{left:.1} {bottom}V{top:.1}H{right:.1}V{bottom}Z"));
        }
        self.put(format_args!("\"/>\n"));
    }

    /// A mark across the frame with its name above, in the line of this number from 0 to 3.
    pub(super) fn mark(&mut self, x: f64, line: u32, name: &str) {
        let (bottom, y) = (UPWARDS.0, ABOVE + LINE * f64::from(line));
        let (anchor, at) = if x > ACROSS.1 - NAME { ("end", x - 4.0) } else { ("start", x + 4.0) };
        self.put(format_args!(
            "<path class=\"mark\" d=\"M{x:.1} {:.1}V{bottom}\"/>\n\
             <text x=\"{at:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>\n",
            y - LINE + 4.0,
            Text(name)
        ));
    }

    /// The name of a line of this shape, above the frame.
    pub(super) fn name(&mut self, shape: usize, name: &str) {
        let x = ACROSS.0 + NAME * f64::from(self.names);
        self.names += 1;
        let y = ABOVE + LINE;
        self.put(format_args!(
            "<path class=\"line s{shape}\" d=\"M{x:.1} {y:.1}h24\"/>\n<text x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
            x + 30.0,
            y + 4.0,
            Text(name)
        ));
    }

    /// The element, whole.
    pub(super) fn finish(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }

    fn axes(&mut self, across: &Axis<'_>, upwards: &Axis<'_>) {
        let ((left, right), (bottom, top)) = (ACROSS, UPWARDS);
        for tick in &upwards.scale.ticks {
            let y = upwards.scale.place(*tick);
            self.put(format_args!(
                "<path class=\"grid\" d=\"M{left} {y:.1}H{right}\"/>\n\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
                left - 6.0,
                y + 4.0,
                Text(&(upwards.tick)(*tick))
            ));
        }
        for tick in &across.scale.ticks {
            let x = across.scale.place(*tick);
            self.put(format_args!(
                "<path class=\"grid\" d=\"M{x:.1} {bottom}v5\"/>\n\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
                bottom + 19.0,
                Text(&(across.tick)(*tick))
            ));
        }
        self.put(format_args!(
            "<path class=\"axis\" d=\"M{left} {top}V{bottom}H{right}\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n\
             <text transform=\"translate(12 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
            f64::midpoint(left, right),
            HEIGHT - 8.0,
            Text(across.name),
            f64::midpoint(bottom, top),
            Text(upwards.name)
        ));
    }

    fn put(&mut self, what: fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.text.write_fmt(what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_becomes_markup() {
        let hostile = "<script>\"&'\u{1b}";
        assert_eq!(Text(hostile).to_string(), r"&lt;script&gt;&quot;&amp;&#39;\u{1b}");
        let scale = (Scale::linear(1.0, ACROSS), Scale::linear(1.0, UPWARDS));
        let axis = |scale| Axis { scale, name: hostile, tick: |_| "<tick>".to_owned() };
        let mut picture = Picture::new("p", hostile, hostile, &axis(&scale.0), &axis(&scale.1));
        picture.name(0, hostile);
        picture.mark(300.0, 0, hostile);
        let text = picture.finish();
        assert!(!text.contains("<script>") && !text.contains("<tick>") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn a_picture_says_what_it_shows() {
        let scale = (Scale::linear(10.0, ACROSS), Scale::linear(1.0, UPWARDS));
        let axis = |scale, name| Axis { scale, name, tick: |value| format!("{value:.1}") };
        let mut picture = Picture::new("p", "Rate", "Calls", &axis(&scale.0, "time"), &axis(&scale.1, "a second"));
        picture.line(1, [(64.0, 268.0), (744.0, 64.0)].into_iter());
        picture.bars([(64.0, 70.0, 100.0)].into_iter());
        let text = picture.finish();
        for piece in [
            "aria-labelledby=\"pt pd\"",
            "<title id=\"pt\">Rate</title>",
            "<desc id=\"pd\">Calls</desc>",
            ">time</text>",
            ">10.0</text>",
            "class=\"line s1\" d=\"M64.0 268.0L744.0 64.0\"",
            "M64.0 268V100.0H70.0V268Z",
        ] {
            assert!(text.contains(piece), "{piece} is not in {text}");
        }
        assert_eq!(text.matches("<svg").count(), text.matches("</svg>").count());
    }
}
