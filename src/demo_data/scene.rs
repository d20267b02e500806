//! One synthetic picture and its label map, in integers, so that every machine draws the same.

use super::Random;

/// Background, disc, square, triangle, diamond.
pub const CLASSES: u8 = 5;

/// A picture and its label map.
pub struct Scene {
    pub width: u32,
    pub height: u32,
    /// RGB, row by row.
    pub image: Vec<u8>,
    /// 1 to [`CLASSES`], 0 along edges.
    pub label: Vec<u8>,
}

/// A shape filled with its class's texture, or the background.
struct Region {
    class: u8,
    /// Centre.
    x: i32,
    y: i32,
    /// Half the extent.
    radius: i32,
    /// The two colours that the texture mixes.
    colors: [[i32; 3]; 2],
    /// Pixels after which the texture repeats.
    period: i32,
    /// Direction of stripes.
    direction: (i32, i32),
    /// Seed of blotches and speckles.
    seed: u32,
}

impl Scene {
    /// Draws three or four shapes over a background.
    pub fn draw(random: &mut Random) -> Scene {
        let (width, height) = (96 + 8 * random.between(0, 4), 96 + 8 * random.between(0, 4));
        let mut regions = vec![Region::new(random, 1, width, height)];
        // Shapes of different classes, so that every class is in most pictures; which is on top changes.
        let first = random.between(0, 3);
        for shape in first..first + random.between(3, 4) {
            regions.push(Region::new(random, 2 + (shape % 4) as u8, width, height));
        }
        let mut image = Vec::with_capacity((width * height * 3) as usize);
        let mut classes = Vec::with_capacity((width * height) as usize);
        for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
            // The last region is on top; the background holds every pixel.
            let region = regions.iter().rev().find(|region| region.holds(x, y)).unwrap_or(&regions[0]);
            classes.push(region.class);
            let mix = region.mix(x, y);
            for channel in 0..3 {
                let [one, other] = region.colors.map(|color| color[channel]);
                let value = one + (other - one) * mix / 256 + random.between(-14, 14);
                image.push(value.clamp(0, 255) as u8);
            }
        }
        let label = with_edges_ignored(&classes, width, height);
        Scene { width: width as u32, height: height as u32, image, label }
    }
}

impl Region {
    fn new(random: &mut Random, class: u8, width: i32, height: i32) -> Region {
        let color: [i32; 3] = std::array::from_fn(|_| random.between(40, 215));
        // Far enough from the first to see the texture, towards the middle so that it stays in range.
        let contrast = if class == 1 { random.between(15, 30) } else { random.between(70, 110) };
        let other = color.map(|value| if value < 128 { value + contrast } else { value - contrast });
        let directions = [(1, 0), (0, 1), (1, 1), (1, -1)];
        Region {
            class,
            x: random.between(16, width - 17),
            y: random.between(16, height - 17),
            radius: random.between(22, 32),
            colors: [color, other],
            period: random.between(6, 9),
            direction: directions[random.below(4) as usize],
            seed: random.below(u32::MAX),
        }
    }

    /// Whether the pixel lies in the shape.
    fn holds(&self, x: i32, y: i32) -> bool {
        let (dx, dy, r) = (x - self.x, y - self.y, self.radius);
        match self.class {
            2 => dx * dx + dy * dy <= r * r,
            3 => dx.abs().max(dy.abs()) <= r * 7 / 8,
            4 => dy <= r && 5 * dx.abs() <= 3 * (dy + r),
            5 => dx.abs() + dy.abs() <= r * 5 / 4,
            _ => true,
        }
    }

    /// How much of the second colour the texture has at a pixel, 0 to 256.
    fn mix(&self, x: i32, y: i32) -> i32 {
        let p = self.period;
        match self.class {
            1 => self.blotch(x, y),
            2 => 256 * i32::from((x * self.direction.0 + y * self.direction.1).rem_euclid(p) < p / 2),
            3 => 256 * i32::from((x.rem_euclid(p) < p / 2) != (y.rem_euclid(p) < p / 2)),
            4 => {
                let (dx, dy) = (x.rem_euclid(p) - p / 2, y.rem_euclid(p) - p / 2);
                256 * i32::from(dx * dx + dy * dy <= 4)
            }
            _ => 256 * i32::from(self.noise(x / 2, y / 2) < 128),
        }
    }

    /// Noise on a grid of 16 pixels, bilinear between.
    fn blotch(&self, x: i32, y: i32) -> i32 {
        let (gx, gy, fx, fy) = (x / 16, y / 16, x % 16, y % 16);
        let row = |gy: i32| self.noise(gx, gy) * (16 - fx) + self.noise(gx + 1, gy) * fx;
        (row(gy) * (16 - fy) + row(gy + 1) * fy) / 256
    }

    /// 0 to 255, a hash of the position (the finalizer of MurmurHash3).
    fn noise(&self, x: i32, y: i32) -> i32 {
        let mut h = self.seed ^ (x as u32).wrapping_mul(0x9e37_79b1) ^ (y as u32).wrapping_mul(0x85eb_ca77);
        h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
        h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
        ((h ^ (h >> 16)) & 255) as i32
    }
}

/// The classes, with 0 for two pixels on either side of every edge between classes.
fn with_edges_ignored(classes: &[u8], width: i32, height: i32) -> Vec<u8> {
    let mut label = classes.to_vec();
    let at = |x: i32, y: i32| (y * width + x) as usize;
    let mut ignore = |xs: std::ops::RangeInclusive<i32>, y: i32| {
        for x in xs.filter(|x| (0..width).contains(x)) {
            label[at(x, y)] = 0;
        }
    };
    for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
        let class = classes[at(x, y)];
        if x + 1 < width && classes[at(x + 1, y)] != class {
            ignore(x - 1..=x + 2, y);
        }
        if y + 1 < height && classes[at(x, y + 1)] != class {
            (y - 1..=y + 2).filter(|y| (0..height).contains(y)).for_each(|y| ignore(x..=x, y));
        }
    }
    label
}
