//! An explanation for people: the verdict first, then every step.

use std::fmt;

use super::{Explanation, Told};

/// Width of the column of rules: the longest is `stale-while-revalidate`.
const RULE_WIDTH: usize = 22;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verdict, cause) = self.deciding();
        write!(f, "{} {}: {} ({}", self.request.method, self.request.url, self.summary(), verdict.cause)?;
        match &verdict.place {
            Some(place) => writeln!(f, ", {place})")?,
            None => writeln!(f, ")")?,
        }
        if let Some(told) = cause.filter(|told| !told.changes.is_empty()) {
            writeln!(f, "What would change it, each by itself:")?;
            told.changes.iter().try_for_each(|change| writeln!(f, "  {change}"))?;
        }
        if !self.passed_over.is_empty() {
            writeln!(f, "\nRoutes before it:")?;
            for passed in &self.passed_over {
                write!(f, "  \"{}\" does not match by {}", passed.route, passed.key)?;
                passed
                    .place
                    .as_ref()
                    .map_or(Ok(()), |place| write!(f, " ({}:{}:{})", place.file, place.line, place.column))?;
                writeln!(f)?;
            }
        }
        writeln!(f, "\nStep by step:")?;
        told(f, &self.steps)?;
        ended(f, self.cache_status.as_deref(), self.result)?;
        if let Some(store) = &self.store {
            write!(f, "\n{store}")?;
        }
        if let Some(next) = &self.next {
            writeln!(f, "\nThe same request {} s later:", next.after)?;
            told(f, &next.steps)?;
            ended(f, next.cache_status.as_deref(), next.result)?;
        }
        Ok(())
    }
}

fn told(f: &mut fmt::Formatter<'_>, steps: &[Told]) -> fmt::Result {
    for step in steps {
        writeln!(f, "  {:RULE_WIDTH$} {}: {} [{}]", step.rule, step.input, step.outcome, step.source)?;
        if let Some(place) = &step.place {
            writeln!(f, "  {:RULE_WIDTH$} at {place}", "")?;
        }
    }
    Ok(())
}

fn ended(f: &mut fmt::Formatter<'_>, cache_status: Option<&str>, result: Option<&str>) -> fmt::Result {
    if let Some(status) = cache_status {
        writeln!(f, "  Cache-Status: {status}")?;
    }
    if let Some(result) = result {
        writeln!(f, "  counted as {result}")?;
    }
    Ok(())
}
